"""Products of a map with its own shifted copies, over a window: the two halves of attention in a window.

Maps are ``(B, heads, d, *spatial)``, weights ``(B, heads, K, N)`` for the ``K`` offsets of an odd window, row-major,
and ``N`` positions in raster order. Outside the image maps are zero.

Both halves and the transpose of the second are each other's derivatives. They are written as such: left to autograd,
every offset costs a map of zeros with one copied part, three times the time of a training step of the operation.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mixlab.ops.windows import offsets

Ints = tuple[int, ...]


def window_scores(q: Tensor, k: Tensor, kernel: Ints) -> Tensor:
    """``s[j, i] = q[i] · k[i + j]``, summed over ``d``: ``(B, heads, K, N)``."""
    dtype = torch.promote_types(q.dtype, k.dtype)
    apply = _scores if torch.compiler.is_compiling() else _Scores.apply  # a traced graph has its own derivatives
    return apply(q.to(dtype), k.to(dtype), kernel)


def window_sum(weights: Tensor, v: Tensor, kernel: Ints) -> Tensor:
    """``y[i] = sum_j weights[j, i] v[i + j]``: ``(B, heads, d, *spatial)``."""
    dtype = torch.promote_types(weights.dtype, v.dtype)
    apply = _sum if torch.compiler.is_compiling() else _Sum.apply
    return apply(weights.to(dtype), v.to(dtype), kernel)


def gathered_scores(q: Tensor, k: Tensor, kernel: Ints) -> Tensor:
    """:func:`window_scores` as one matrix product a position; the reference."""
    rows = q.flatten(3).transpose(2, 3).unsqueeze(4)  # (B, heads, N, d, 1)
    return (_windows(k, kernel) @ rows).squeeze(4).transpose(2, 3)


def gathered_sum(weights: Tensor, v: Tensor, kernel: Ints) -> Tensor:
    """:func:`window_sum` likewise."""
    rows = weights.transpose(2, 3).unsqueeze(3)  # (B, heads, N, 1, K)
    return (rows @ _windows(v, kernel)).squeeze(3).transpose(2, 3).unflatten(3, v.shape[3:])


def _windows(t: Tensor, kernel: Ints) -> Tensor:
    """(B, heads, N, K, d): every position's window."""
    t, axes = _padded(t, kernel), len(kernel)
    for axis, w in enumerate(kernel, start=3):
        t = t.unfold(axis, w, 1)  # the window's axes come last
    return t.flatten(3 + axes).flatten(3, 2 + axes).permute(0, 1, 3, 4, 2)


def _padded(t: Tensor, kernel: Ints) -> Tensor:
    return F.pad(t.contiguous(), [w // 2 for w in reversed(kernel) for _ in (0, 1)])  # last axis first


def _offsets(kernel: Ints) -> list[Ints]:
    return offsets(kernel, (1,) * len(kernel))


def _shifted(padded: Tensor, offset: Ints, kernel: Ints, size: Ints) -> Tensor:
    """The view of a padded map whose position holds what lies at ``offset`` from it."""
    for axis, (o, w, n) in enumerate(zip(offset, kernel, size, strict=True), start=3):
        padded = padded.narrow(axis, w // 2 + o, n)
    return padded


def _each(weights: Tensor, size: Ints) -> tuple[Tensor, ...]:
    """K maps (B, heads, 1, *spatial)."""
    return weights.unflatten(3, size).unsqueeze(2).unbind(3)


def _scores(q: Tensor, k: Tensor, kernel: Ints) -> Tensor:
    size, k, q = tuple(q.shape[3:]), _padded(k, kernel), q.contiguous()
    return torch.stack([(q * _shifted(k, o, kernel, size)).sum(dim=2) for o in _offsets(kernel)], dim=2).flatten(3)


def _sum(weights: Tensor, v: Tensor, kernel: Ints) -> Tensor:
    size, v = tuple(v.shape[3:]), _padded(v, kernel)
    each, (first, *others) = _each(weights, size), _offsets(kernel)
    out = each[0] * _shifted(v, first, kernel, size)
    for weight, o in zip(each[1:], others, strict=True):
        out.addcmul_(weight, _shifted(v, o, kernel, size))
    return out


def _spread(weights: Tensor, x: Tensor, kernel: Ints) -> Tensor:
    """``y[i + j] = sum_i weights[j, i] x[i]``: the transpose of :func:`_sum`."""
    size, x = tuple(x.shape[3:]), x.contiguous()
    padded = x.new_zeros(*x.shape[:3], *(n + w - 1 for n, w in zip(size, kernel, strict=True)))
    for weight, o in zip(_each(weights, size), _offsets(kernel), strict=True):
        _shifted(padded, o, kernel, size).addcmul_(weight, x)
    return _shifted(padded, (0,) * len(size), kernel, size)


class _Product(torch.autograd.Function):
    """Bilinear in two tensors, so that its derivatives are products again and can be derived themselves."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Ints], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.kernel = inputs[2]


class _Scores(_Product):
    @staticmethod
    def forward(q: Tensor, k: Tensor, kernel: Ints) -> Tensor:
        return _scores(q, k, kernel)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        q, k = ctx.saved_tensors
        return _Sum.apply(grad, k, ctx.kernel), _Spread.apply(grad, q, ctx.kernel), None


class _Sum(_Product):
    @staticmethod
    def forward(weights: Tensor, v: Tensor, kernel: Ints) -> Tensor:
        return _sum(weights, v, kernel)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        weights, v = ctx.saved_tensors
        return _Scores.apply(grad, v, ctx.kernel), _Spread.apply(weights, grad, ctx.kernel), None


class _Spread(_Product):
    @staticmethod
    def forward(weights: Tensor, x: Tensor, kernel: Ints) -> Tensor:
        return _spread(weights, x, kernel)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        weights, x = ctx.saved_tensors
        return _Scores.apply(x, grad, ctx.kernel), _Sum.apply(weights, grad, ctx.kernel), None
