from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mixlab.channel_mixers.base import ChannelMixer, register_channel_mixer
from mixlab.channel_mixers.mlp import MLP
from mixlab.cost import Cost, Size
from mixlab.ops.windows import PerAxis, odd_kernel
from mixlab.reparam import ConvNorm, RepDepthwise, layer_cost


@register_channel_mixer("conv_mlp")
class ConvMLP(ChannelMixer):
    """A depthwise convolution with BatchNorm, then an MLP: ``y = W_2 act(W_1 BN(K * x) + b_1) + b_2``.

    The convolution mixes tokens, each channel in its own window with zeros outside the image, so a block with this
    channel mixer looks further than its token mixer. Global tokens have no neighbours and pass the MLP alone. The paper
    has 2D; in 1D and 3D the window has one or three axes, nothing else changes.

    Args:
        dim: channels in and out.
        spatial_dims: 1, 2 or 3.
        kernel_size: odd window, an int or one per axis.
        ratio: hidden channels are ``int(dim · ratio)``.
        reparameterise: in training a sum of a wide and a narrow convolution (see ``mixlab.reparam.RepDepthwise``); else
            one convolution. ``fuse`` makes one convolution of either, without BatchNorm.
        act: activation, a name or a part of ``mixlab.activations.ACTIVATIONS``.
        dropout: dropout after the activation and after the last layer.

    Cost: ``2 N dim · hidden`` MACs of the MLP, ``N · dim · prod(kernel)`` of every depthwise convolution (two with
    ``reparameterise`` before fusion, one after it); one other operation an element for the activation and for the sum
    of two convolutions, five for each BatchNorm.

    Source: Yun et al., MetaMixer Is All You Need (arXiv:2406.02021): the channel mixer of FFNet, ratio 3, 7x7 (3x3
    without ``reparameterise`` in FFNet-1).
    """

    def __init__(
        self,
        dim: int,
        *,
        spatial_dims: int = 2,
        kernel_size: PerAxis = 7,
        ratio: float = 3.0,
        reparameterise: bool = True,
        act: str | Mapping[str, Any] = "gelu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(dim, spatial_dims=spatial_dims)
        self.kernel_size = odd_kernel(kernel_size, spatial_dims, "conv_mlp")
        self.conv: Any = (
            RepDepthwise(dim, dim, self.kernel_size, spatial_dims=spatial_dims)
            if reparameterise
            else ConvNorm(dim, dim, self.kernel_size, spatial_dims=spatial_dims, groups=dim)
        )
        self.mlp = MLP(dim, spatial_dims=spatial_dims, ratio=ratio, act=act, dropout=dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim, *spatial)`` to the same shape."""
        return self.mlp(self.conv(x))

    def forward_tokens(self, tokens: Tensor) -> Tensor:
        """Global tokens ``(B, G, dim)`` through the MLP: they have no neighbours."""
        return self.mlp.forward_tokens(tokens)

    def cost(self, size: Size) -> Cost:
        return layer_cost(self.conv, size) + self.mlp.cost(size)

    def cost_tokens(self, count: int) -> Cost:
        """Cost of :meth:`forward_tokens`, parameters left out."""
        return self.mlp.cost_tokens(count)
