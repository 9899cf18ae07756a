from __future__ import annotations

import math

from torch import Tensor

from mixlab.cost import Cost, Size
from mixlab.mixers.base import Includes, Mixer, register_mixer
from mixlab.ops.passes import pool
from mixlab.ops.windows import PerAxis, clipped_pairs, odd_kernel


@register_mixer("pooling")
class Pooling(Mixer):
    """Average of the window's neighbours inside the image, minus the position itself.

    ``y_i = mean_{j in window(i) and image} x_j - x_i``. Borders divide by the neighbours that exist (4 in the corner of
    a 3x3 window), so a constant map gives zero everywhere. The subtraction compensates the block's residual.

    Args:
        dim: channels.
        spatial_dims: 1, 2 or 3.
        kernel_size: odd window, an int or one per axis.
        subtract_input: subtract ``x``.

    Cost: no parameters and no MACs; for ``P`` (position, neighbour) pairs and ``N`` positions ``dim · (P + N)`` other
    operations: ``P - N`` additions, ``N`` divisions, ``N`` subtractions.

    Source: PoolFormer, Yu et al., MetaFormer Is Actually What You Need for Vision (arXiv:2111.11418), section 3.2.
    """

    includes = Includes(subtracts_input=True, reach="window")

    def __init__(
        self, dim: int, *, spatial_dims: int = 2, kernel_size: PerAxis = 3, subtract_input: bool = True
    ) -> None:
        super().__init__(dim, spatial_dims=spatial_dims)
        self.kernel_size = odd_kernel(kernel_size, spatial_dims, "pooling")
        self.subtract_input = subtract_input

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim, *spatial)`` to the same shape."""
        self.check(x)
        return pool(x, self.kernel_size, self.subtract_input)

    def cost(self, size: Size) -> Cost:
        tokens = math.prod(size)
        pairs = clipped_pairs(size, self.kernel_size, (1,) * len(size))
        subtractions = tokens * self.subtract_input
        return Cost(other_ops=self.dim * (pairs + subtractions), activations=self.dim * (tokens + subtractions))

    def extra_repr(self) -> str:
        return f"{self.dim}, kernel_size={self.kernel_size}, subtract_input={self.subtract_input}"
