"""Products of a map with its own shifted copies, over a window: the two halves of attention in a window.

Maps are ``(B, heads, d, *spatial)``, weights ``(B, heads, K, N)`` for the ``K`` places of a window, row-major, and
``N`` positions in raster order. What a neighbour outside the image gives is zero in a sum; a score with one means
nothing and is to be masked, and so are its weights where windows are shifted.

Both halves and the transpose of the second are each other's derivatives. They are written as such: left to autograd,
every offset costs a map of zeros with one copied part, three times the time of a training step of the operation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mixlab.ops.neighbours import Ints, Window, axis_tables
from mixlab.ops.windows import offsets

# Of an axis: the table (k, n) of positions, and whether positions share a window at the axis's ends only (no dilation,
# and the window fits), so that slices do for what is gathered otherwise.
_Axis = tuple[Tensor, bool]


def window_scores(q: Tensor, k: Tensor, window: Window) -> Tensor:
    """``s[j, i] = q[i] · k[neighbour j of i]``, summed over ``d``: ``(B, heads, K, N)``."""
    dtype = torch.promote_types(q.dtype, k.dtype)
    apply = _scores if torch.compiler.is_compiling() else _Scores.apply  # a traced graph has its own derivatives
    return apply(q.to(dtype), k.to(dtype), window)


def window_sum(weights: Tensor, v: Tensor, window: Window) -> Tensor:
    """``y[i] = sum_j weights[j, i] v[neighbour j of i]``: ``(B, heads, d, *spatial)``."""
    dtype = torch.promote_types(weights.dtype, v.dtype)
    apply = _sum if torch.compiler.is_compiling() else _Sum.apply
    return apply(weights.to(dtype), v.to(dtype), window)


def _neighbours(t: Tensor, window: Window) -> Iterator[Tensor]:
    """K maps ``(B, heads, d, *spatial)`` that hold, at each position, its neighbour; views where windows are
    clipped."""
    size = tuple(t.shape[3:])
    if window.border == "clip":
        padded = F.pad(t.contiguous(), [h for h in reversed(_halo(window)) for _ in (0, 1)])  # last axis first
        for offset in offsets(window.kernel, window.dilation):
            yield _shifted(padded, offset, window, size)
    else:
        yield from _picked(t.contiguous(), _places(size, window, t.device))


def _halo(window: Window) -> list[int]:
    return [k // 2 * step for k, step in zip(window.kernel, window.dilation, strict=True)]


def _shifted(padded: Tensor, offset: Ints, window: Window, size: Ints) -> Tensor:
    """The view of a padded map whose position holds what lies at ``offset`` from it."""
    for axis, (o, halo, n) in enumerate(zip(offset, _halo(window), size, strict=True), start=3):
        padded = padded.narrow(axis, halo + o, n)
    return padded


def _picked(t: Tensor, tables: list[_Axis]) -> Iterator[Tensor]:
    """Neighbours by position, from tables of the last axes: one axis after the other."""
    if not tables:
        yield t
        return
    axis = t.ndim - len(tables)
    for place in range(len(tables[0][0])):
        yield from _picked(_pick(t, axis, *tables[0], place), tables[1:])


def _places(size: Ints, window: Window, device: torch.device) -> list[_Axis]:
    axes = zip(size, window.kernel, window.dilation, axis_tables(size, window, device), strict=True)
    traced = torch.compiler.is_compiling()  # a comparison would fix a dynamic size
    return [(table[0], not traced and step == 1 and n >= k) for n, k, step, table in axes]


def _pick(t: Tensor, axis: int, table: Tensor, plain: bool, place: int) -> Tensor:
    """``t`` at one place of every window along an axis."""
    if not plain:
        return t.index_select(axis, table[place])
    (k, n), end = table.shape, [*t.shape]
    end[axis] = k // 2  # so many positions share the first window, and as many the last
    first, last = (t.narrow(axis, at, 1).expand(end) for at in (place, n - k + place))
    return torch.cat([first, t.narrow(axis, place, n - 2 * (k // 2)), last], dim=axis)


def _put_back(maps: Iterator[Tensor], tables: list[_Axis]) -> Tensor:
    """The transpose of :func:`_picked`, summed."""
    if not tables:
        return next(maps)
    total = None
    for place in range(len(tables[0][0])):
        part = _put_back(maps, tables[1:])
        axis = part.ndim - len(tables)
        total = torch.zeros_like(part) if total is None else total
        table, plain = tables[0]
        if not plain:
            total.index_add_(axis, table[place], part)
            continue
        (k, n), half = table.shape, len(table) // 2
        total.narrow(axis, place, n - 2 * half).add_(part.narrow(axis, half, n - 2 * half))
        total.narrow(axis, place, 1).add_(part.narrow(axis, 0, half).sum(dim=axis, keepdim=True))
        total.narrow(axis, n - k + place, 1).add_(part.narrow(axis, n - half, half).sum(dim=axis, keepdim=True))
    assert total is not None
    return total


def _each(weights: Tensor, size: Ints) -> tuple[Tensor, ...]:
    """K maps (B, heads, 1, *spatial)."""
    return weights.unflatten(3, size).unsqueeze(2).unbind(3)


def _scores(q: Tensor, k: Tensor, window: Window) -> Tensor:
    q = q.contiguous()  # the loop reads rows of pixels
    return torch.stack([(q * near).sum(dim=2) for near in _neighbours(k, window)], dim=2).flatten(3)


def _sum(weights: Tensor, v: Tensor, window: Window) -> Tensor:
    pairs = zip(_each(weights, tuple(v.shape[3:])), _neighbours(v, window), strict=True)
    weight, near = next(pairs)
    out = weight * near
    for weight, near in pairs:
        out.addcmul_(weight, near)
    return out


def _spread(weights: Tensor, x: Tensor, window: Window) -> Tensor:
    """``y[neighbour j of i] += weights[j, i] x[i]``: the transpose of :func:`_sum`."""
    size, x = tuple(x.shape[3:]), x.contiguous()
    each = _each(weights, size)
    if window.border == "shift":
        return _put_back((weight * x for weight in each), _places(size, window, x.device))
    padded = x.new_zeros(*x.shape[:3], *(n + 2 * halo for n, halo in zip(size, _halo(window), strict=True)))
    for weight, offset in zip(each, offsets(window.kernel, window.dilation), strict=True):
        _shifted(padded, offset, window, size).addcmul_(weight, x)
    return _shifted(padded, (0,) * len(size), window, size)


class _Product(torch.autograd.Function):
    """Bilinear in two tensors, so that its derivatives are products again and can be derived themselves."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Window], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.window = inputs[2]


class _Scores(_Product):
    @staticmethod
    def forward(q: Tensor, k: Tensor, window: Window) -> Tensor:
        return _scores(q, k, window)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        q, k = ctx.saved_tensors
        return _Sum.apply(grad, k, ctx.window), _Spread.apply(grad, q, ctx.window), None


class _Sum(_Product):
    @staticmethod
    def forward(weights: Tensor, v: Tensor, window: Window) -> Tensor:
        return _sum(weights, v, window)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        weights, v = ctx.saved_tensors
        return _Scores.apply(grad, v, ctx.window), _Spread.apply(weights, grad, ctx.window), None


class _Spread(_Product):
    @staticmethod
    def forward(weights: Tensor, x: Tensor, window: Window) -> Tensor:
        return _spread(weights, x, window)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        weights, x = ctx.saved_tensors
        return _Scores.apply(x, grad, ctx.window), _Sum.apply(weights, grad, ctx.window), None
