"""The contract of patch embeddings and positions.

A patch embedding makes tokens: ``Embedding(dim_in, dim, *, spatial_dims=2, **own)`` maps ``(B, dim_in, *spatial)`` to
``(B, dim, *smaller)`` and knows its ``output_size``. A position returns what is *added* to a map: ``Position(dim, *,
spatial_dims=2, **own)``, same shape in and out.
"""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from mixlab.cost import Cost, Size
from mixlab.ops.windows import check_spatial_dims
from mixlab.registry import Registry


class Embedding(nn.Module):
    """A stem or a downsampling."""

    def __init__(self, dim_in: int, dim: int, *, spatial_dims: int = 2) -> None:
        super().__init__()
        self.dim_in, self.dim = dim_in, dim
        self.spatial_dims = check_spatial_dims(spatial_dims, type(self).__name__)

    def output_size(self, size: Size) -> Size:
        """Size of the map made from an input of ``size``; UserError when no token would be left."""
        raise NotImplementedError

    @property
    def reduction(self) -> Size:
        """Stride of the tokens, per axis."""
        raise NotImplementedError

    def cost(self, size: Size) -> Cost:
        """Cost for one input of ``size``."""
        raise NotImplementedError


class Position(nn.Module):
    """Position information, as a map that is added to the input."""

    needs_grid: ClassVar[bool] = False

    def cost(self, size: Size) -> Cost:
        """Cost for one map of ``size``."""
        raise NotImplementedError


EMBEDDINGS: Registry[Embedding] = Registry("patch embedding", "mixlab.embeddings")
POSITIONS: Registry[Position] = Registry("position", "mixlab.positions")
