"""Tokens that know where they are: an MLP of the coordinates, added to the map that a patch embedding makes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mixlab.cost import Cost, Size, linear
from mixlab.embeddings.base import EMBEDDINGS, POSITIONS, Position
from mixlab.embeddings.conv import ConvEmbedding
from mixlab.embeddings.none import Resampling
from mixlab.errors import expected
from mixlab.ops.size_cache import size_cached
from mixlab.ops.windows import PerAxis, check_spatial_dims


@size_cached()
def coordinates(*size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Centres of the positions of a grid on [-1, 1], axis by axis: ``(*size, len(size))``.

    Position ``i`` of ``n`` is at ``(2 i + 1) / n - 1``: a single position lies in the middle, and a grid of another
    size covers the same square.
    """
    exact = torch.promote_types(dtype, torch.float32)  # half precision cannot tell the centres of a large grid apart
    axes = [(2 * torch.arange(n, device=device, dtype=exact) + 1) / n - 1 for n in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).to(dtype)


@POSITIONS.register("coord_mlp")
class CoordMLP(Position):
    """An MLP of each position's coordinates: ``W2 LeakyReLU(W1 p + b1) + b2``; any size.

    Args:
        dim: channels.
        spatial_dims: 1, 2 or 3; as many coordinates go in.
        hidden: hidden channels.

    Parameters: ``hidden (spatial_dims + 1) + dim (hidden + 1)``.
    Source: the local-attention study that mixlab reproduces (``2 -> 16 -> C``), there added before the first block of
    each stage.
    """

    def __init__(self, dim: int, *, spatial_dims: int = 2, hidden: int = 16) -> None:
        super().__init__()
        self.spatial_dims = check_spatial_dims(spatial_dims, "coord_mlp position")
        if not isinstance(hidden, int) or hidden < 1:
            raise expected("coord_mlp hidden", "at least one hidden channel", hidden, "16")
        self.dim, self.hidden = dim, hidden
        self.fc1 = nn.Linear(spatial_dims, hidden)
        self.act = nn.LeakyReLU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """What is added to ``(B, dim, *spatial)``: the same for all images, ``(1, dim, *spatial)``."""
        grid = coordinates(*x.shape[2:], device=x.device, dtype=self.fc1.weight.dtype)
        return self.fc2(self.act(self.fc1(grid))).movedim(-1, 0)[None]

    def cost(self, size: Size) -> Cost:
        """Cost for one map of ``size``; a batch shares the one map of coordinates."""
        tokens = math.prod(size)
        act = Cost(other_ops=self.hidden * tokens, activations=self.hidden * tokens)
        return linear(self.spatial_dims, self.hidden, tokens) + act + linear(self.hidden, self.dim, tokens)


@EMBEDDINGS.register("coord_mlp")
class CoordMLPEmbedding(Resampling):
    """Resampling, a 1x1 convolution, and an MLP of the coordinates added: :class:`Resampling` + :class:`CoordMLP`.

    Args:
        dim_in: channels in.
        dim: channels out.
        spatial_dims: 1, 2 or 3.
        stride: an int or one per axis in ``(D, H, W)`` order.
        hidden: hidden channels of the MLP.

    Source: the local-attention study that mixlab reproduces, where it stands in for the convolution.
    """

    def __init__(self, dim_in: int, dim: int, *, spatial_dims: int = 2, stride: PerAxis = 2, hidden: int = 16) -> None:
        super().__init__(dim_in, dim, spatial_dims=spatial_dims, stride=stride)
        self.position = CoordMLP(dim, spatial_dims=spatial_dims, hidden=hidden)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim_in, *spatial)`` to ``(B, dim, *output_size(spatial))``."""
        x = super().forward(x)
        return x + self.position(x)

    def cost(self, size: Size) -> Cost:
        return super().cost(size) + self.position.cost(self.output_size(size))


@EMBEDDINGS.register("coord_mlp+conv")
class CoordMLPConv(ConvEmbedding):
    """A strided convolution, and an MLP of the coordinates added: :class:`ConvEmbedding` + :class:`CoordMLP`.

    Args:
        dim_in: channels in.
        dim: channels out.
        spatial_dims: 1, 2 or 3.
        hidden: hidden channels of the MLP.
        kernel_size, stride, padding, bias, pre_norm, norm: of the convolution, as of :class:`ConvEmbedding`.

    Source: the local-attention study that mixlab reproduces.
    """

    def __init__(
        self,
        dim_in: int,
        dim: int,
        *,
        spatial_dims: int = 2,
        hidden: int = 16,
        kernel_size: PerAxis = 3,
        stride: PerAxis = 2,
        padding: PerAxis | Literal["end"] = 1,
        bias: bool = True,
        pre_norm: str | Mapping[str, Any] | None = None,
        norm: str | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            dim_in,
            dim,
            spatial_dims=spatial_dims,
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            bias=bias,
            pre_norm=pre_norm,
            norm=norm,
        )
        self.position = CoordMLP(dim, spatial_dims=spatial_dims, hidden=hidden)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim_in, *spatial)`` to ``(B, dim, *output_size(spatial))``."""
        x = super().forward(x)
        return x + self.position(x)

    def cost(self, size: Size) -> Cost:
        return super().cost(size) + self.position.cost(self.output_size(size))
