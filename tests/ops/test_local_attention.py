"""Every path of local attention against the definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mixlab.errors import UserError
from mixlab.ops import local_attention
from mixlab.ops import local_attention_pure as pure
from mixlab.ops.local_attention import choose_path, computed_pairs, reference

PROBLEMS = [
    ((11,), (3,), (1,)),
    ((13,), (5,), (2,)),
    ((7, 5), (3, 5), (1, 1)),
    ((7, 5), (3, 3), (2, 1)),
    ((13, 11), (7, 7), (1, 1)),
    ((1, 1), (3, 3), (1, 1)),
    ((2, 3), (7, 7), (1, 1)),
    ((3, 5, 7), (3, 1, 5), (1, 1, 1)),
    ((5, 3, 7), (3, 3, 3), (1, 2, 3)),
]


def tensors(size: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = torch.randn(3, 2, 3, 4, *size, dtype=dtype).unbind()
    return q.requires_grad_(), k.requires_grad_(), v.requires_grad_()


@pytest.mark.parametrize("path", list(pure.PATHS))
@pytest.mark.parametrize(("size", "kernel", "dilation"), PROBLEMS)
def test_path_equals_reference(
    path: str, size: tuple[int, ...], kernel: tuple[int, ...], dilation: tuple[int, ...]
) -> None:
    if path == "bands" and max(dilation) > 1:
        pytest.skip("bands take no dilation; the dispatcher never sends it there")
    inputs = tensors(size)
    want = reference(*inputs, kernel, dilation, 0.5)
    got = pure.PATHS[path](*inputs, kernel, dilation, 0.5)
    weights = torch.randn_like(want)
    torch.testing.assert_close(got, want)
    gradients = zip(torch.autograd.grad(got, inputs, weights), torch.autograd.grad(want, inputs, weights), strict=True)
    for ours, theirs in gradients:
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("backend", ["reference", "pure"])
def test_gradcheck(backend: str) -> None:
    q, k, v = (torch.randn(1, 2, 3, 4, 3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    assert torch.autograd.gradcheck(lambda q, k, v: local_attention(q, k, v, 3, backend=backend), (q, k, v))


@pytest.mark.parametrize("size", [(17, 19), (29, 31)])
def test_auto_in_float32(size: tuple[int, ...]) -> None:
    q, k, v = tensors(size, torch.float32)
    for kernel in (3, 5, 7):
        want = local_attention(q, k, v, kernel, backend="reference")
        torch.testing.assert_close(local_attention(q, k, v, kernel), want, atol=1e-5, rtol=1e-4)


def test_corner_of_a_3x3_window_has_four_keys() -> None:
    q = k = torch.zeros(1, 1, 1, 5, 5)
    v = torch.zeros(1, 1, 1, 5, 5)
    v[..., 0, 0] = 1.0
    out = local_attention(q, k, v, 3)[0, 0, 0]
    assert out[0, 0].item() == pytest.approx(1 / 4)
    assert out[0, 1].item() == pytest.approx(1 / 6)
    assert out[1, 1].item() == pytest.approx(1 / 9)
    assert out[2, 2].item() == 0.0


def test_large_scores_stay_finite() -> None:
    q, k, v = (100 * t for t in tensors((19, 17), torch.float32))
    out = local_attention(q, k, v, 7)
    out.sum().backward()
    assert out.isfinite().all()


def test_computed_pairs_follow_the_path() -> None:
    assert choose_path((7, 7), (7, 7), (1, 1)) == "dense"
    assert computed_pairs((7, 7), (7, 7), (1, 1)) == 49**2
    assert choose_path((56, 56), (3, 3), (1, 1)) == "shift"
    assert computed_pairs((56, 56), (3, 3), (1, 1)) == 56 * 56 * 9
    assert choose_path((56, 56), (7, 7), (1, 1)) == "bands"
    assert computed_pairs((56, 56), (7, 7), (1, 1)) == 28 * (2 * 56) * (8 * 56)


def test_bad_input() -> None:
    q, k, v = tensors((5, 5))
    with pytest.raises(UserError, match="one shape"):
        local_attention(q, k[..., :4], v, 3)
    with pytest.raises(UserError, match="try 3 or 5"):
        local_attention(q, k, v, 4)
    with pytest.raises(UserError, match="backend"):
        local_attention(q, k, v, 3, backend="cuda")
