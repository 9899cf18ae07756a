"""Position information, added to a map."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixlab.cost import Cost, Size, convolution
from mixlab.embeddings.base import POSITIONS, Position
from mixlab.errors import expected
from mixlab.ops.convs import CONVS
from mixlab.ops.resize import INTERPOLATION
from mixlab.ops.windows import PerAxis, odd_kernel


@POSITIONS.register("conv")
class ConvPosition(Position):
    """Conditional position encoding: a depthwise convolution of the map itself; any size.

    Args:
        dim: channels.
        spatial_dims: 1, 2 or 3.
        kernel_size: odd, an int or one per axis.

    Source: Chu et al., Conditional Positional Encodings (arXiv:2102.10882); used in every block of RMT
    (arXiv:2309.11523).
    """

    def __init__(self, dim: int, *, spatial_dims: int = 2, kernel_size: PerAxis = 3) -> None:
        super().__init__()
        self.dim, self.kernel_size = dim, odd_kernel(kernel_size, spatial_dims, "conv position")
        padding = tuple(k // 2 for k in self.kernel_size)
        self.conv = CONVS[spatial_dims](dim, dim, self.kernel_size, padding=padding, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)

    def cost(self, size: Size) -> Cost:
        return convolution(self.dim, self.dim, self.kernel_size, size, groups=self.dim)


@POSITIONS.register("learned")
class LearnedPosition(Position):
    """A learned embedding of the grid, zero at the start.

    Args:
        dim: channels.
        spatial_dims: 1, 2 or 3.
        grid_size: the stage's grid, handed over by the backbone that was built with ``image_size``.
        resize: ``none`` (another grid raises) or ``bilinear`` (the embedding is interpolated to it).

    Source: the attention hybrids of PoolFormer (arXiv:2111.11418).
    """

    needs_grid = True
    no_decay = ("embedding",)

    def __init__(self, dim: int, *, grid_size: Size, spatial_dims: int = 2, resize: str = "none") -> None:
        super().__init__()
        if resize not in ("none", "bilinear"):
            raise expected("learned position resize", "'none' or 'bilinear'", resize)
        self.grid_size, self.resize, self.mode = tuple(grid_size), resize, INTERPOLATION[spatial_dims]
        self.embedding = nn.Parameter(torch.zeros(1, dim, *grid_size))

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        if tuple(size) == self.grid_size:
            return self.embedding.expand_as(x)
        if self.resize == "none":
            raise expected(
                "learned position",
                f"a grid of {self.grid_size}",
                tuple(size),
                "a model built with the image_size of these images, or the part's option resize='bilinear'",
            )
        return F.interpolate(self.embedding, size=size, mode=self.mode, align_corners=False).expand(
            len(x), *x.shape[1:]
        )

    def cost(self, size: Size) -> Cost:
        return Cost(parameters=self.embedding.numel(), activations=self.embedding.shape[1] * math.prod(size))
