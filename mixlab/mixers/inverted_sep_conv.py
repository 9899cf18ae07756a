from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mixlab.activations import ACTIVATIONS
from mixlab.cost import Cost, Size, convolution, linear
from mixlab.errors import expected
from mixlab.mixers.base import Includes, Mixer, register_mixer
from mixlab.ops import Pointwise
from mixlab.ops.convs import CONVS
from mixlab.ops.windows import PerAxis, odd_kernel


@register_mixer("inverted_sep_conv")
class InvertedSepConv(Mixer):
    """Inverted separable convolution: widen the channels, filter each in a window, narrow them.

    ``y = W_2 DW(act(W_1 x))`` with ``W_1`` from ``dim`` to ``expansion · dim`` channels and a depthwise convolution
    ``DW`` (zeros outside the image) on the widened map; no biases.

    Args:
        dim: channels.
        spatial_dims: 1, 2 or 3.
        kernel_size: odd window, an int or one per axis.
        expansion: widened channels are ``int(dim · expansion)``.
        act: activation between the first two, a part of ``mixlab.activations.ACTIVATIONS``.
        bias: biases on all three.

    Raises:
        UserError: a kernel size is even, or ``expansion`` leaves no channel.

    Cost: with ``E`` widened channels ``2 N dim E + N E prod(kernel_size)`` MACs and one other operation an element of
    the widened map for the activation.

    Source: ConvFormer, Yu et al., MetaFormer Baselines for Vision (arXiv:2210.13452), after MobileNetV2
    (arXiv:1801.04381): 7x7, expansion 2, StarReLU.
    """

    includes = Includes(projections=True, mixes_channels=True, learned=True, position="window", reach="window")

    def __init__(
        self,
        dim: int,
        *,
        spatial_dims: int = 2,
        kernel_size: PerAxis = 7,
        expansion: float = 2.0,
        act: str | Mapping[str, Any] = "star_relu",
        bias: bool = False,
    ) -> None:
        super().__init__(dim, spatial_dims=spatial_dims)
        self.kernel_size = odd_kernel(kernel_size, spatial_dims, "inverted_sep_conv")
        self.wide = int(dim * expansion)
        if self.wide < 1:
            raise expected("inverted_sep_conv expansion", f"at least one channel for width {dim}", expansion, "2")
        padding = tuple(k // 2 for k in self.kernel_size)
        self.expand = Pointwise(dim, self.wide, bias=bias)
        self.act = ACTIVATIONS.build(act)
        self.conv = CONVS[spatial_dims](
            self.wide, self.wide, self.kernel_size, padding=padding, groups=self.wide, bias=bias
        )
        self.reduce = Pointwise(self.wide, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim, *spatial)`` to the same shape."""
        self.check(x)
        return self.reduce(self.conv(self.act(self.expand(x))))

    def cost(self, size: Size) -> Cost:
        n, bias = math.prod(size), self.conv.bias is not None
        expand, reduce = (linear(a, b, n, bias=bias) for a, b in ((self.dim, self.wide), (self.wide, self.dim)))
        act = Cost(sum(p.numel() for p in self.act.parameters()), other_ops=self.wide * n, activations=self.wide * n)
        conv = convolution(self.wide, self.wide, self.kernel_size, size, groups=self.wide, bias=bias)
        return expand + act + conv + reduce
