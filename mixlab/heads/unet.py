"""The decoder of U-Net: upward level by level, with the encoder's maps beside."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mixlab.activations import ACTIVATIONS
from mixlab.cost import Cost, Size, convolution, linear
from mixlab.errors import expected
from mixlab.heads.decoder import ChannelDropout, Decoder, elementwise, register_decoder, resize_cost
from mixlab.norms import build_norm, norm_cost
from mixlab.ops import Pointwise
from mixlab.ops.convs import CONVS
from mixlab.ops.resize import resized
from mixlab.ops.windows import PerAxis, odd_kernel
from mixlab.reparam import fused_conv

Spec = str | Mapping[str, Any]


class ConvLayer(nn.Module):
    """A convolution that keeps the size, norm, activation."""

    def __init__(self, dim_in: int, dim: int, kernel: tuple[int, ...], norm: Spec | None, act: Spec) -> None:
        super().__init__()
        self.conv = CONVS[len(kernel)](dim_in, dim, kernel, padding=tuple(k // 2 for k in kernel), bias=norm is None)
        self.norm = build_norm(norm, dim, len(kernel))
        self.act = ACTIVATIONS.build(act)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim_in, *spatial)`` to ``(B, dim, *spatial)``."""
        return self.act(self.norm(self.conv(x)))

    def cost(self, size: Size) -> Cost:
        """Cost for a map of ``size``."""
        conv = self.conv
        total = convolution(conv.in_channels, conv.out_channels, conv.kernel_size, size, bias=conv.bias is not None)
        total += norm_cost(self.norm, size) + elementwise(conv.out_channels, size)
        return total + Cost(parameters=sum(p.numel() for p in self.act.parameters()))

    def fuse(self) -> ConvLayer:
        """Fold a BatchNorm into the convolution (evaluation mode)."""
        if isinstance(self.norm, nn.modules.batchnorm._BatchNorm):
            self.conv, self.norm = fused_conv(self.conv, self.norm), nn.Identity()
        return self


@register_decoder("unet")
class UNetDecoder(Decoder):
    """From the last map upward: resized to the map before it, joined with that one, two convolutions with norm and
    activation; class scores by a linear layer at the first map, or after ``top`` levels, resized to the image.

    Args:
        widths, reductions, num_classes, spatial_dims: see :class:`Decoder`.
        channels: of the levels at the maps but the last, first map first; None for the widths of the maps.
        top: channels of levels above the first map, without a map beside them, lowest first: the last one is at the
            image's own resolution, each other at half (rounded up) of the next one's. ``(32, 16)`` suits a first map of
            stride 4. Empty: scores of the first map are interpolated.
        kernel_size: of the convolutions, odd, an int or one per axis.
        norm: a part of ``mixlab.norms.NORMS``, or None.
        act: a part of ``mixlab.activations.ACTIVATIONS``.
        dropout: of whole channels before the classes.

    Source: Ronneberger et al., U-Net (arXiv:1505.04597), with interpolation for transposed convolutions.
    """

    def __init__(
        self,
        widths: Sequence[int],
        reductions: Sequence[Sequence[int]],
        num_classes: int,
        *,
        spatial_dims: int = 2,
        channels: Sequence[int] | None = None,
        top: Sequence[int] = (),
        kernel_size: PerAxis = 3,
        norm: Spec | None = "group_norm",
        act: Spec = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(widths, reductions, num_classes, spatial_dims=spatial_dims)
        own = tuple(widths[:-1] if channels is None else channels)
        if len(own) != len(widths) - 1:
            want = f"{len(widths) - 1} numbers, one for each map but the last"
            raise expected("decoder unet channels", want, channels, str(tuple(widths[:-1])))
        for name, values in (("channels", own), ("top", tuple(top))):
            if any(not isinstance(v, int) or v < 1 for v in values):
                raise expected(f"decoder unet {name}", "positive numbers of channels", values, "(32, 16)")
        kernel = odd_kernel(kernel_size, spatial_dims, "decoder unet")
        self.top = tuple(top)
        self.levels = nn.ModuleList()
        dim = widths[-1]
        beside = [*reversed(widths[:-1]), *(0 for _ in self.top)]
        for skip, width in zip(beside, [*reversed(own), *self.top], strict=True):
            two = [ConvLayer(dim + skip, width, kernel, norm, act), ConvLayer(width, width, kernel, norm, act)]
            self.levels.append(nn.Sequential(*two))
            dim = width
        self.dropout = ChannelDropout(dropout)
        self.classifier = Pointwise(dim, num_classes)

    def top_sizes(self, first: Sequence[int], size: Sequence[int]) -> list[Size]:
        """Sizes of the levels above a first map, never below that map's (an axis that the stem does not halve)."""
        steps = range(len(self.top) - 1, -1, -1)
        return [tuple(max(-(-n // 2**k), least) for n, least in zip(size, first, strict=True)) for k in steps]

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        self.check(maps)
        *skips, x = maps
        below = len(skips)
        for level, skip in zip(self.levels, reversed(skips), strict=False):
            x = level(torch.cat([resized(x, skip.shape[2:]), skip], dim=1))
        for level, own in zip(self.levels[below:], self.top_sizes(maps[0].shape[2:], size), strict=True):
            x = level(resized(x, own))
        return resized(self.classifier(self.dropout(x)), size)

    def cost(self, sizes: Sequence[Size], size: Size) -> Cost:
        dim, before, total = self.widths[-1], sizes[-1], Cost()
        places = [*reversed(sizes[:-1]), *self.top_sizes(sizes[0], size)]
        for level, own in zip(self.levels, places, strict=True):
            total += resize_cost(dim, before, own)
            for layer in level:  # type: ignore[attr-defined]
                total += layer.cost(own)
                dim = layer.conv.out_channels
            before = own
        return total + linear(dim, self.num_classes, math.prod(before)) + resize_cost(self.num_classes, before, size)

    def fuse(self) -> UNetDecoder:
        """Fold BatchNorms into their convolutions (evaluation mode)."""
        for level in self.levels:
            for layer in level:  # type: ignore[attr-defined]
                layer.fuse()
        return self
