"""Parts with a training form and a deployment form that computes the same (structural reparameterisation).

A part has ``fuse()``, which returns the module that takes its place, in evaluation mode only; the parts of this file
stay as they were. ``MetaFormer.fuse`` puts it in place. A container counts and measures what it holds through
:func:`layer_cost` and :func:`layer_output`, which know both forms.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mixlab.cost import Cost, Size, convolution
from mixlab.errors import expected
from mixlab.norms import batch_norm, norm_cost
from mixlab.ops.convs import CONVS
from mixlab.ops.windows import PerAxis, check_spatial_dims, conv_output, odd_kernel, per_axis


def fused_conv(conv: Any, norm: Any) -> Any:
    """One convolution for a convolution and its BatchNorm, in evaluation mode."""
    fused = fuse_conv_bn_eval(conv, norm)
    fused.bias.requires_grad_(conv.weight.requires_grad)  # torch leaves a new bias untrainable
    return fused


class ConvNorm(nn.Module):
    """A convolution, then BatchNorm; in deployment one convolution with a bias.

    Args:
        dim_in, dim_out: channels.
        kernel_size: an int or one per axis.
        spatial_dims: 1, 2 or 3.
        stride: likewise.
        padding: zeros on both sides, likewise; None for half the kernel, which keeps the size at stride 1.
        groups: of the convolution.
        bias: of the convolution; BatchNorm has its own.
    """

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        kernel_size: PerAxis,
        *,
        spatial_dims: int = 2,
        stride: PerAxis = 1,
        padding: PerAxis | None = None,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        check_spatial_dims(spatial_dims, "conv and norm")
        kernel = per_axis(kernel_size, spatial_dims, "conv and norm kernel_size")
        steps = per_axis(stride, spatial_dims, "conv and norm stride")
        half = tuple(k // 2 for k in kernel)
        zeros = half if padding is None else per_axis(padding, spatial_dims, "conv and norm padding", at_least=0)
        self.conv = CONVS[spatial_dims](dim_in, dim_out, kernel, steps, zeros, groups=groups, bias=bias)
        self.norm = batch_norm(dim_out, spatial_dims=spatial_dims)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim_in, *spatial)`` to ``(B, dim_out, *output_size(spatial))``."""
        return self.norm(self.conv(x))

    def output_size(self, size: Size) -> Size:
        """Size of the map made from one of ``size``."""
        return layer_output(self.conv, size)

    def cost(self, size: Size) -> Cost:
        """Cost for one input of ``size``."""
        return layer_cost(self.conv, size) + norm_cost(self.norm, self.output_size(size))

    def fuse(self) -> nn.Module:
        """One convolution that computes the same."""
        return fused_conv(self.conv, self.norm)


class RepDepthwise(nn.Module):
    """A wide and a narrow depthwise convolution, each with BatchNorm, added; in deployment one convolution.

    ``y = BN(W_wide x) + BN(W_narrow x)``. The narrow kernel is ``k // 2``, made odd: 3 beside 7, 1 beside 3.

    Args:
        dim_in: channels in, and groups of both convolutions.
        dim_out: channels out, a multiple of ``dim_in``.
        kernel_size: of the wide convolution, odd, an int or one per axis.
        spatial_dims: 1, 2 or 3.
        stride: of both convolutions, an int or one per axis.

    Source: Ding et al., RepLKNet (arXiv:2203.06717); as in FFNet (arXiv:2406.02021).
    """

    def __init__(
        self, dim_in: int, dim_out: int, kernel_size: PerAxis, *, spatial_dims: int = 2, stride: PerAxis = 1
    ) -> None:
        super().__init__()
        if dim_out % dim_in:
            raise expected("depthwise convolution dim_out", f"a multiple of the {dim_in} channels in", dim_out)
        wide = odd_kernel(kernel_size, spatial_dims, "depthwise convolution")
        narrow = tuple(k // 2 | 1 for k in wide)
        self.wide, self.narrow = (
            ConvNorm(dim_in, dim_out, kernel, spatial_dims=spatial_dims, stride=stride, groups=dim_in)
            for kernel in (wide, narrow)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim_in, *spatial)`` to ``(B, dim_out, *output_size(spatial))``."""
        return self.wide(x) + self.narrow(x)

    def output_size(self, size: Size) -> Size:
        """Size of the map made from one of ``size``."""
        return self.wide.output_size(size)

    def cost(self, size: Size) -> Cost:
        """Cost for one input of ``size``: both branches, and their sum."""
        elements = self.wide.conv.out_channels * math.prod(self.output_size(size))
        return self.wide.cost(size) + self.narrow.cost(size) + Cost(other_ops=elements, activations=elements)

    @torch.no_grad()
    def fuse(self) -> nn.Module:
        """One depthwise convolution that computes the same: kernels, the narrow one in the centre, and biases add."""
        wide: Any = self.wide.fuse()
        narrow: Any = self.narrow.fuse()
        missing = [(w - n) // 2 for w, n in zip(wide.kernel_size, narrow.kernel_size, strict=True)]
        wide.weight += F.pad(narrow.weight, [zeros for m in reversed(missing) for zeros in (m, m)])
        wide.bias += narrow.bias
        return wide


class NormSkip(nn.Module):
    """``x + W BN(x)``, where ``W`` is a linear layer on each position; in deployment one such layer with a bias.

    Args:
        dim: channels.
        spatial_dims: 1, 2 or 3.

    Source: FFNet (arXiv:2406.02021), after each downsampling.
    """

    def __init__(self, dim: int, *, spatial_dims: int = 2) -> None:
        super().__init__()
        self.norm = batch_norm(dim, spatial_dims=spatial_dims)
        self.conv = CONVS[check_spatial_dims(spatial_dims, "norm and skip")](dim, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim, *spatial)`` to the same shape."""
        return x + self.conv(self.norm(x))

    def output_size(self, size: Size) -> Size:
        """``size``."""
        return size

    def cost(self, size: Size) -> Cost:
        """Cost for one input of ``size``."""
        return norm_cost(self.norm, size) + layer_cost(self.conv, size)

    @torch.no_grad()
    def fuse(self) -> nn.Module:
        """One 1x1 convolution that computes the same: ``W diag(s) + I`` and ``W t``, where ``BN(x) = s x + t``."""
        norm, dim = self.norm, self.conv.in_channels
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()  # (C,)
        shift = norm.bias - norm.running_mean * scale
        fused = copy.deepcopy(self.conv)
        weight = self.conv.weight.view(dim, dim)
        fused.weight.copy_((weight * scale + torch.eye(dim).to(weight)).view_as(fused.weight))
        fused.bias = nn.Parameter(weight @ shift, requires_grad=self.conv.weight.requires_grad)
        return fused


def layer_output(layer: nn.Module, size: Size) -> Size:
    """Output size of a convolution, or of a part of this file."""
    if isinstance(layer, _ConvNd):
        padding = tuple(int(p) for p in layer.padding)
        spans = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return conv_output(size, spans, layer.stride, padding)
    return layer.output_size(size)  # type: ignore[operator]


def layer_cost(layer: nn.Module, size: Size) -> Cost:
    """Cost of a convolution, or of a part of this file, for one input of ``size``."""
    if not isinstance(layer, _ConvNd):
        return layer.cost(size)  # type: ignore[operator]
    return convolution(
        layer.in_channels, layer.out_channels, layer.kernel_size, layer_output(layer, size),
        groups=layer.groups, bias=layer.bias is not None,
    )  # fmt: skip
