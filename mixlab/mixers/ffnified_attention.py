from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from mixlab.cost import Cost, Size
from mixlab.mixers.base import Includes, Mixer, register_mixer
from mixlab.ops.convs import CONVS
from mixlab.ops.windows import PerAxis, odd_kernel
from mixlab.reparam import ConvNorm, RepDepthwise, layer_cost


@register_mixer("ffnified_attention")
class FFNifiedAttention(Mixer):
    """Attention with learned keys and values: two depthwise convolutions with GELU in the place of the softmax.

    ``y = V * GELU(K * BN(W x))``, ``*`` a depthwise convolution with zeros outside the image. Queries ``W x`` meet keys
    that are weights of the window's offsets, the same for every image; GELU makes coefficients of the products, and the
    second convolution sums values, weights again, with them. Each convolution looks one window far, so that a position
    reaches ``2 (k // 2)`` neighbours on every side.

    In training ``K`` and ``V`` are sums of two convolutions with BatchNorm each (see ``mixlab.reparam.RepDepthwise``);
    ``fuse`` makes one of them. The paper has 2D; in 1D and 3D the windows have one or three axes, nothing else changes.

    Args:
        dim: channels.
        spatial_dims: 1, 2 or 3.
        kernel_size: odd window of both convolutions, an int or one per axis.
        reparameterise: ``K`` and ``V`` as sums of a wide and a narrow convolution; else plain convolutions with a bias,
            which is what the first two stages of FFNet have, with ``kernel_size=3``.

    Cost: ``N dim²`` MACs for the queries and ``N · dim · prod(kernel)`` for every depthwise convolution, of which there
    are four before fusion and two after it; one other operation an element for GELU, one for each sum of two
    convolutions, five for each BatchNorm.

    Source: Yun et al., MetaMixer Is All You Need (arXiv:2406.02021): the token mixer of FFNet.
    """

    includes = Includes(projections=True, mixes_channels=True, learned=True, position="window", reach="two windows")

    def __init__(
        self, dim: int, *, spatial_dims: int = 2, kernel_size: PerAxis = 7, reparameterise: bool = True
    ) -> None:
        super().__init__(dim, spatial_dims=spatial_dims)
        self.kernel_size = odd_kernel(kernel_size, spatial_dims, "ffnified_attention")
        self.query = ConvNorm(dim, dim, 1, spatial_dims=spatial_dims)
        self.key = self._depthwise(reparameterise)
        self.act = nn.GELU()
        self.value = self._depthwise(reparameterise)

    def _depthwise(self, reparameterise: bool) -> Any:
        if reparameterise:
            return RepDepthwise(self.dim, self.dim, self.kernel_size, spatial_dims=self.spatial_dims)
        padding = tuple(k // 2 for k in self.kernel_size)
        return CONVS[self.spatial_dims](self.dim, self.dim, self.kernel_size, padding=padding, groups=self.dim)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim, *spatial)`` to the same shape."""
        self.check(x)
        return self.value(self.act(self.key(self.query(x))))

    def cost(self, size: Size) -> Cost:
        elements = self.dim * math.prod(size)
        act = Cost(other_ops=elements, activations=elements)
        return layer_cost(self.query, size) + layer_cost(self.key, size) + act + layer_cost(self.value, size)
