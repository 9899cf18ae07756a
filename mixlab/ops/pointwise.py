"""The linear layer on every position of a map: a 1x1 convolution whose weight is a plain matrix in 1D, 2D and 3D."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``y[b, :, p] = W x[b, :, p] + bias``.

    Args:
        x: map ``(B, C_in, *spatial)``, one to three spatial axes.
        weight: ``(C_out, C_in)``.
        bias: ``(C_out,)`` or None.

    Returns:
        ``(B, C_out, *spatial)``, channels first, so that heads can be split off without a permute.
    """
    spatial_dims = x.ndim - 2
    return _CONV[spatial_dims](x, weight.view(*weight.shape, *(1,) * spatial_dims), bias)


class Pointwise(nn.Linear):
    """:func:`pointwise` as a layer: parameters of ``nn.Linear``, a map ``(B, C, *spatial)`` in and out."""

    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x, self.weight, self.bias)
