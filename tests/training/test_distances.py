"""The Hausdorff distance of masks against distances made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mixlab.training.distances import hausdorff


def box(size: tuple[int, ...], start: tuple[int, ...], length: int) -> Tensor:
    """One structure ``(1, *size)``: a cube of so many pixels from ``start`` on."""
    plane = torch.zeros(1, *size, dtype=torch.bool)
    inner = plane[0]
    for axis, first in enumerate(start):
        inner = inner.narrow(axis, first, length)
    inner.fill_(True)
    return plane


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_equal_masks_are_at_distance_zero(dims: int) -> None:
    mask = torch.rand(3, *(11, 9, 7)[:dims]) < 0.4
    assert hausdorff(mask, mask.clone()).tolist() == [0.0, 0.0, 0.0]


def by_hand(said: Tensor, truth: Tensor, steps: tuple[float, ...]) -> float:
    """All distances between the borders of two boxes, without any library."""

    def border(mask: Tensor) -> list[tuple[int, ...]]:
        there = {tuple(p) for p in mask[0].nonzero().tolist()}
        axes = range(mask.ndim - 1)
        return [
            p for p in sorted(there) if any((*p[:a], p[a] + d, *p[a + 1 :]) not in there for a in axes for d in (-1, 1))
        ]

    def directed(a: Tensor, b: Tensor) -> float:
        ends = border(b)
        nearest = [min(math.dist(np.multiply(p, steps), np.multiply(q, steps)) for q in ends) for p in border(a)]
        return float(np.percentile(nearest, 95))

    return max(directed(said, truth), directed(truth, said))


@pytest.mark.parametrize(("dims", "axis"), [(1, 0), (2, 0), (2, 1), (3, 0), (3, 2)])
@pytest.mark.parametrize("spacing", [None, (0.5, 2.0, 3.0)])
def test_a_shifted_box(dims: int, axis: int, spacing: tuple[float, ...] | None) -> None:
    size, start = (16, 15, 14)[:dims], (2, 2, 2)[:dims]
    moved = tuple(s + 4 * (i == axis) for i, s in enumerate(start))
    said, truth = box(size, moved, 5), box(size, start, 5)
    steps = (1.0,) * dims if spacing is None else spacing[:dims]
    found = hausdorff(said, truth, None if spacing is None else steps)
    assert found.tolist() == pytest.approx([by_hand(said, truth, steps)])
    if spacing is None and dims > 1:  # more than 5 % of the border is 4 pixels away
        assert found.item() == 4.0


def test_both_directions_count() -> None:
    """A line one pixel high and its first pixel: 0 one way, the line's own pixels 0 to 10 the other way."""
    line, spot = torch.zeros(2, 1, 3, 12, dtype=torch.bool)
    line[0, 1, 1:12] = spot[0, 1, 1] = True
    for found in (hausdorff(spot, line), hausdorff(line, spot)):
        assert found.tolist() == pytest.approx([np.percentile(range(11), 95)])


def test_empty_structures() -> None:
    """Neither: nan. One of the two: the diagonal of the field of view, in millimetres where these are known."""
    there, nothing = box((6, 8), (1, 1), 3), torch.zeros(1, 6, 8, dtype=torch.bool)
    said = torch.cat([there, nothing, nothing, there])
    truth = torch.cat([nothing, there, nothing, there])
    for spacing, diagonal in ((None, 10.0), ((2.0, 0.5), math.hypot(12, 4))):
        found = hausdorff(said, truth, spacing)
        assert found.dtype == torch.float32
        assert found[:2].tolist() == pytest.approx([diagonal] * 2)
        assert math.isnan(found[2])
        assert found[3] == 0
    assert hausdorff(nothing, nothing).isnan().all()


@pytest.mark.parametrize("size", [(1, 9), (9, 1), (1, 1, 9), (1,)])
def test_axes_of_one_pixel(size: tuple[int, ...]) -> None:
    start, end = torch.zeros(2, 1, *size, dtype=torch.bool)
    start.view(-1)[0] = end.view(-1)[-1] = True
    assert hausdorff(start, end).tolist() == [max(size) - 1.0]
    assert hausdorff(start, end, [3.0] * len(size)).tolist() == [3 * (max(size) - 1.0)]
