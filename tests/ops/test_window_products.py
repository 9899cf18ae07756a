"""The products of a map with its shifted copies: each other's derivatives, and equal to the definition."""

from __future__ import annotations

import math

import pytest
import torch

from mixlab.ops.local_attention_reference import reference_aggregate
from mixlab.ops.neighbours import Window
from mixlab.ops.window_products import window_scores, window_sum

WINDOWS = [
    ((4,), Window((3,), (1,))),
    ((3, 2), Window((3, 5), (1, 1))),
    ((2, 1, 2), Window((3, 3, 1), (1, 1, 1))),
    ((4, 3), Window((3, 3), (2, 1))),
    ((5,), Window((3,), (1,), "shift")),
    ((4, 5), Window((3, 3), (1, 2), "shift")),
]


@pytest.mark.parametrize(("size", "window"), WINDOWS)
def test_products_are_each_others_derivatives(size: tuple[int, ...], window: Window) -> None:
    q, k = (torch.randn(1, 2, 2, *size, dtype=torch.float64, requires_grad=True) for _ in range(2))
    shape = (1, 2, math.prod(window.kernel), math.prod(size))
    weights = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda a, b: window_scores(a, b, window), (q, k))
        assert check(lambda a, b: window_sum(a, b, window), (weights, k))


@pytest.mark.parametrize(("size", "window"), [w for w in WINDOWS if w[1].border == "clip" or w[1].keeps_all(w[0])])
def test_sum_is_the_definitions(size: tuple[int, ...], window: Window) -> None:
    weights = torch.randn(1, 2, math.prod(window.kernel), math.prod(size), dtype=torch.float64)
    v = torch.randn(1, 2, 3, *size, dtype=torch.float64)
    want = reference_aggregate(weights.unflatten(3, size).movedim(2, -1), v, window)
    torch.testing.assert_close(window_sum(weights, v, window), want)
