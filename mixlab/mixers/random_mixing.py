from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixlab.cost import Size
from mixlab.mixers.base import Includes, register_mixer
from mixlab.mixers.grid_mixer import GridMixer


@register_mixer("random_mixing")
class RandomMixing(GridMixer):
    """Random mixing: every position gets a fixed random average of all positions, never trained.

    ``y = R x`` along the positions, in raster order. ``R`` is drawn once: each row is the softmax of uniform numbers in
    [0, 1). It is saved with the model. It shows how far a frame gets with any mixing at all.

    Args:
        dim: channels.
        grid_size: the map's size, handed over by the backbone that was built with ``image_size``.
        spatial_dims: 1, 2 or 3.

    Raises:
        UserError: the map has another size than ``grid_size``.

    Cost: ``dim · N²`` MACs and ``N²`` frozen parameters.

    Source: RandFormer, Yu et al., MetaFormer Baselines for Vision (arXiv:2210.13452).
    """

    includes = Includes(position="pairs", reach="global")
    name = "random_mixing"

    def __init__(self, dim: int, *, grid_size: Size, spatial_dims: int = 2) -> None:
        super().__init__(dim, grid_size=grid_size, spatial_dims=spatial_dims)
        random = torch.rand(self.positions, self.positions).softmax(dim=-1)
        self.random_matrix = nn.Parameter(random, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim, *grid_size)`` to the same shape."""
        self.check(x)
        return F.linear(x.flatten(2), self.random_matrix).unflatten(2, self.grid_size)
