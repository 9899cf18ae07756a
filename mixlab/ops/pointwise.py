"""The linear layer on every position of a map: a 1x1 convolution whose weight is a plain matrix in 1D, 2D and 3D."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``y[b, :, p] = W x[b, :, p] + bias``.

    Args:
        x: map ``(B, C_in, *spatial)``, one to three spatial axes.
        weight: ``(C_out, C_in)``.
        bias: ``(C_out,)`` or None.

    Returns:
        ``(B, C_out, *spatial)``, a view whose channels lie innermost in memory. On a CPU that is as fast as a 1x1
        convolution on large maps and up to 1.9 times faster on small ones (``benchmarks/pointwise.py``), and chains of
        pointwise layers stay in this layout without copies.
    """
    y = F.linear(x.movedim(1, -1), weight)  # (B, *spatial, C_out)
    # A bias given to F.linear is first copied to every position: one pass more than adding it afterwards.
    return (y if bias is None else y.add_(bias)).movedim(-1, 1)


def pointwise_planar(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """:func:`pointwise` from channels innermost to positions innermost: the product turns the map, without a copy.

    Args:
        x: map ``(B, C_in, *spatial)``; a copy is made unless positions or channels lie innermost.
        weight: ``(C_out, C_in)``.
        bias: ``(C_out,)`` or None.

    Returns:
        ``(B, C_out, *spatial)``, contiguous.
    """
    y = torch.bmm(weight.expand(x.shape[0], -1, -1), x.flatten(2))  # (B, C_out, N)
    return (y if bias is None else y.add_(bias[:, None])).unflatten(2, x.shape[2:])


def pointwise_from_planar(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """:func:`pointwise` from positions innermost to channels innermost, likewise.

    Args:
        x: map ``(B, C_in, *spatial)``, contiguous.
        weight: ``(C_out, C_in)``.
        bias: ``(C_out,)`` or None.

    Returns:
        ``(B, C_out, *spatial)``, a view whose channels lie innermost in memory.
    """
    y = torch.bmm(x.flatten(2).transpose(1, 2), weight.t().expand(x.shape[0], -1, -1))  # (B, N, C_out)
    return (y if bias is None else y.add_(bias)).transpose(1, 2).unflatten(2, x.shape[2:])


class Pointwise(nn.Linear):
    """:func:`pointwise` as a layer: parameters of ``nn.Linear``, a map ``(B, C, *spatial)`` in and out."""

    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x, self.weight, self.bias)
