"""A token mixer of your own, in a file of your own: nothing in the package changes.

mixlab study run --import examples/my_mixers.py --mixers max_pooling,pooling --data digits --epochs 2
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

import mixlab
from mixlab.cost import Cost, Size
from mixlab.mixers import Includes, Mixer
from mixlab.ops.windows import PerAxis, clipped_pairs, odd_kernel

POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


@mixlab.register_mixer("max_pooling")
class MaxPooling(Mixer):
    """Maximum of the window's neighbours inside the image, minus the position itself.

    Args:
        dim: channels.
        spatial_dims: 1, 2 or 3.
        kernel_size: odd window, an int or one per axis.

    Cost: no MACs; one comparison a neighbour and one subtraction a position.

    Source: an example.
    """

    includes = Includes(subtracts_input=True, reach="window")

    def __init__(self, dim: int, *, spatial_dims: int = 2, kernel_size: PerAxis = 3) -> None:
        super().__init__(dim, spatial_dims=spatial_dims)
        self.kernel_size = odd_kernel(kernel_size, spatial_dims, "max_pooling")

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim, *spatial)`` to the same shape."""
        self.check(x)
        padding = tuple(k // 2 for k in self.kernel_size)
        return POOL[self.spatial_dims](x, self.kernel_size, 1, padding) - x

    def cost(self, size: Size) -> Cost:
        tokens, pairs = math.prod(size), clipped_pairs(size, self.kernel_size, (1,) * len(size))
        return Cost(other_ops=self.dim * pairs, activations=2 * self.dim * tokens)
