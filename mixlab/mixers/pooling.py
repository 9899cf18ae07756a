from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from mixlab.cost import Cost, Size
from mixlab.mixers.base import Includes, Mixer, register_mixer
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
        pooled = window_mean(x, self.kernel_size)
        return pooled.sub_(x) if self.subtract_input else pooled

    def cost(self, size: Size) -> Cost:
        tokens = math.prod(size)
        pairs = clipped_pairs(size, self.kernel_size, (1,) * len(size))
        subtractions = tokens * self.subtract_input
        return Cost(other_ops=self.dim * (pairs + subtractions), activations=self.dim * (tokens + subtractions))

    def extra_repr(self) -> str:
        return f"{self.dim}, kernel_size={self.kernel_size}, subtract_input={self.subtract_input}"


def window_mean(x: Tensor, kernel: tuple[int, ...]) -> Tensor:
    """Mean over the window's positions inside the image, ``(B, C, *spatial)`` to the same shape.

    In 3D the mean of a box is the mean over ``(H, W)`` and then over ``D``: that is faster on a CPU, and ``avg_pool3d``
    refuses grids smaller than its kernel.
    """
    padding = [k // 2 for k in kernel]
    if x.ndim == 3:
        return F.avg_pool1d(x, kernel, 1, padding, count_include_pad=False)
    if x.ndim == 4:
        return F.avg_pool2d(x, kernel, 1, padding, count_include_pad=False)
    planes = F.avg_pool2d(x.flatten(1, 2), kernel[1:], 1, padding[1:], count_include_pad=False)
    columns = planes.view(x.shape).flatten(3)  # (B, C, D, H * W)
    return F.avg_pool2d(columns, (kernel[0], 1), 1, (padding[0], 0), count_include_pad=False).view(x.shape)
