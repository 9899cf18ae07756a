"""Operations on maps that a chain of tensor operations would read many times, in one or two passes.

* :func:`group_norm`: each sample normalised over channels and positions;
* :func:`pool`: the window's mean, minus the position itself;
* :func:`add_scaled`: ``x + keep · scale · y``, the residual of a block.

On a CPU, where the native library is installed and channels are innermost in memory, they run in it, otherwise as the
tensor operations that define them; so they do in traced graphs, function transforms and autocast.
:func:`mixlab.ops.native.passes.unavailable` says why an installation has no library.
``benchmarks/metaformer.py`` measures what they bring to a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mixlab.ops.native.passes import brought_innermost, gradients_again, innermost, run, takes


def group_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float = 1e-5) -> Tensor:
    """Mean 0 and variance 1 for each sample over channels and positions, then a factor and a term a channel.

    Args:
        x: ``(B, C, *spatial)``.
        weight: ``(C,)``.
        bias: ``(C,)`` or None.
        eps: added to the variance.

    Returns:
        ``(B, C, *spatial)``.
    """
    if not takes(x, weight, bias):
        return _plain_norm(x, weight, bias, eps)
    if torch.is_grad_enabled() and _differs(x, weight, bias):
        return _Norm.apply(x, weight, bias, eps)
    return _normalise(x, weight, bias, eps)[0]


def pool(x: Tensor, kernel: Sequence[int], subtract: bool = True) -> Tensor:
    """Mean over the window's positions inside the image, minus ``x`` if asked; ``(B, C, *spatial)`` to the same shape.

    Args:
        x: one to three spatial axes.
        kernel: odd window, one number an axis.
        subtract: subtract ``x``.
    """
    kernel = tuple(kernel)
    if not takes(x):
        return _plain_pool(x, kernel, subtract)
    if torch.is_grad_enabled() and x.requires_grad:
        return _Pool.apply(x, kernel, subtract, False)
    return _average(x, kernel, subtract, False)


def add_scaled(x: Tensor, y: Tensor, scale: Tensor, keep: Tensor | None = None) -> Tensor:
    """``x + keep · scale · y``.

    Args:
        x, y: ``(B, C, *spatial)``.
        scale: a factor a channel, ``(C,)``.
        keep: a factor a sample, ``(B,)``, or None; it gets no gradient.

    Returns:
        ``(B, C, *spatial)``.
    """
    if not (takes(x, scale, keep) and y.dtype is x.dtype and y.shape == x.shape and innermost(y) and not y.is_neg()):
        return _plain_add(x, y, scale, keep)
    if torch.is_grad_enabled() and _differs(x, y, scale):
        return _AddScaled.apply(x, y, scale, keep)
    return _add(x, y, scale, keep)


def window_mean(x: Tensor, kernel: Sequence[int]) -> Tensor:
    """Mean over the window's positions inside the image, by tensor operations.

    In 3D the mean of a box is the mean over ``(H, W)`` and then over ``D``: that is faster on a CPU, and ``avg_pool3d``
    refuses grids smaller than its kernel.
    """
    kernel, padding = tuple(kernel), [k // 2 for k in kernel]
    if x.ndim == 3:
        return F.avg_pool1d(x, kernel, 1, padding, count_include_pad=False)
    if x.ndim == 4:
        return F.avg_pool2d(x, kernel, 1, padding, count_include_pad=False)
    planes = F.avg_pool2d(x.flatten(1, 2), kernel[1:], 1, padding[1:], count_include_pad=False)
    columns = planes.view(x.shape).flatten(3)  # (B, C, D, H * W)
    return F.avg_pool2d(columns, (kernel[0], 1), 1, (padding[0], 0), count_include_pad=False).view(x.shape)


def _differs(*tensors: Tensor | None) -> bool:
    return any(t is not None and t.requires_grad for t in tensors)


# --- The tensor operations.


def _plain_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    return F.group_norm(x, 1, weight, bias, eps)


def _plain_pool(x: Tensor, kernel: Sequence[int], subtract: bool) -> Tensor:
    pooled = window_mean(x, kernel)
    return pooled.sub_(x) if subtract else pooled


def _plain_add(x: Tensor, y: Tensor, scale: Tensor, keep: Tensor | None) -> Tensor:
    ones = (1,) * (x.ndim - 2)
    y = y if keep is None else y * keep.view(-1, 1, *ones)
    return torch.addcmul(x, y, scale.view(1, -1, *ones))


# --- The library's.


def _normalise(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    y, moments = torch.empty_like(x), x.new_empty(x.shape[0], 2)
    run("norm", x, (x, weight, bias), (y, moments), eps=eps)
    return y, moments


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
        y, moments = _normalise(x, weight, bias, eps)
        ctx.save_for_backward(x, weight, bias, moments)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, moments = ctx.saved_tensors
        if torch.is_grad_enabled() or not takes(x):
            return (*gradients_again(partial(_plain_norm, eps=ctx.eps), (x, weight, bias), grad), None)
        dx, dweight = torch.empty_like(x), torch.empty_like(weight)
        dbias = None if bias is None else torch.empty_like(bias)
        run("norm_backward", x, (x, weight, moments, brought_innermost(grad)), (dx, dweight, dbias))
        return dx, dweight, dbias, None


def _average(x: Tensor, kernel: Sequence[int], subtract: bool, backward: bool) -> Tensor:
    y = torch.empty_like(x)
    axes = (*(1,) * (3 - len(kernel)), *kernel)
    run("pool", x, (x,), (y,), kernel=axes, subtract=subtract, backward=backward)
    return y


class _Pool(torch.autograd.Function):
    """Pooling, or its transpose; each is the other's gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Sequence[int], subtract: bool, transposed: bool) -> Tensor:
        ctx.arguments = kernel, subtract, transposed
        return _average(x, kernel, subtract, transposed)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        kernel, subtract, transposed = ctx.arguments
        grad = brought_innermost(grad)
        if takes(grad):
            return _Pool.apply(grad, kernel, subtract, not transposed), None, None, None
        if transposed:
            return _plain_pool(grad, kernel, subtract), None, None, None
        plain = partial(_plain_pool, kernel=kernel, subtract=subtract)  # linear: the same gradient everywhere
        return gradients_again(plain, (torch.zeros_like(grad).requires_grad_(),), grad)[0], None, None, None


def _add(x: Tensor, y: Tensor, scale: Tensor, keep: Tensor | None) -> Tensor:
    z = torch.empty_like(y)
    run("residual", x, (x, y, scale, keep), (z,))
    return z


class _AddScaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, scale: Tensor, keep: Tensor | None) -> Tensor:
        ctx.save_for_backward(y, scale, keep)
        return _add(x, y, scale, keep)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, scale, keep = ctx.saved_tensors
        if torch.is_grad_enabled() or not takes(y):

            def product(y: Tensor, scale: Tensor) -> Tensor:
                return _plain_add(torch.zeros_like(y), y, scale, keep)

            return (grad, *gradients_again(product, (y, scale), grad), None)
        dy, dscale = torch.empty_like(y), torch.empty_like(scale)
        run("residual_backward", y, (y, scale, keep, brought_innermost(grad)), (dy, dscale))
        return grad, dy, dscale, None
