"""No patch embedding: a smaller picture, and a linear map of each position's channels."""

from __future__ import annotations

import math

from torch import Tensor

from mixlab.cost import Cost, Size, convolution
from mixlab.embeddings.base import EMBEDDINGS, Embedding
from mixlab.errors import expected
from mixlab.ops.convs import CONVS
from mixlab.ops.resize import resized
from mixlab.ops.windows import PerAxis, per_axis


@EMBEDDINGS.register("none")
class Resampling(Embedding):
    """Linear resampling to ``ceil(n / stride)`` positions an axis, then a 1x1 convolution; no norm, no activation.

    Resampling takes the two nearest pixels of each axis (bilinear in 2D, no antialiasing): at stride 2 the mean of the
    patch, at stride 4 the mean of the inner half of each axis; the other pixels are not seen.

    Args:
        dim_in: channels in.
        dim: channels out.
        spatial_dims: 1, 2 or 3.
        stride: an int or one per axis in ``(D, H, W)`` order.

    Source: the local-attention study that mixlab reproduces, where it shows what patch embeddings contribute.
    """

    def __init__(self, dim_in: int, dim: int, *, spatial_dims: int = 2, stride: PerAxis = 2) -> None:
        super().__init__(dim_in, dim, spatial_dims=spatial_dims)
        self.stride = per_axis(stride, spatial_dims, "patch embedding 'none' stride")
        self.proj = CONVS[spatial_dims](dim_in, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim_in, *spatial)`` to ``(B, dim, *output_size(spatial))``."""
        size = [-(-n // s) for n, s in zip(x.shape[2:], self.stride, strict=True)]
        return self.proj(resized(x, size))

    @property
    def reduction(self) -> Size:
        return self.stride

    def output_size(self, size: Size) -> Size:
        if min(size) < 1:
            raise expected("patch embedding 'none'", "at least one position per axis", size, "a larger image_size")
        return tuple(-(-n // s) for n, s in zip(size, self.stride, strict=True))

    def cost(self, size: Size) -> Cost:
        out = self.output_size(size)
        # One position of one channel is a sum of 2 ** spatial_dims products.
        elements = self.dim_in * math.prod(out)
        resampling = Cost(other_ops=elements * (2 ** (self.spatial_dims + 1) - 1), activations=elements)
        return resampling + convolution(self.dim_in, self.dim, (1,) * self.spatial_dims, out)
