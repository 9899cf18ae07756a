"""What mixers with a matrix over the positions of one grid share."""

from __future__ import annotations

import math

from torch import Tensor

from mixlab.cost import Cost, Size, macs
from mixlab.errors import expected
from mixlab.mixers.base import Mixer


class GridMixer(Mixer):
    """Base of the mixers that multiply the positions of one fixed grid by a matrix ``(N, N)``."""

    needs_grid = True
    name = "grid mixer"

    def __init__(self, dim: int, *, grid_size: Size, spatial_dims: int = 2) -> None:
        super().__init__(dim, spatial_dims=spatial_dims)
        self.grid_size = tuple(grid_size)
        self.positions = math.prod(self.grid_size)

    def check(self, x: Tensor) -> None:
        super().check(x)
        if tuple(x.shape[2:]) != self.grid_size:
            raise expected(
                self.name,
                f"a map of {self.grid_size}, the grid it was built for",
                tuple(x.shape[2:]),
                "a model built with the image_size of these images",
            )

    def cost(self, size: Size) -> Cost:
        n = self.positions
        return macs(self.dim * n * n, parameters=n * n, activations=self.dim * n)

    def extra_repr(self) -> str:
        return f"{self.dim}, grid_size={self.grid_size}"
