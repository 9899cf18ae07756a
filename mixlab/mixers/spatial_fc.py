from __future__ import annotations

from torch import Tensor, nn

from mixlab.cost import Size
from mixlab.mixers.base import Includes, register_mixer
from mixlab.mixers.grid_mixer import GridMixer


@register_mixer("spatial_fc")
class SpatialFC(GridMixer):
    """A learned linear map over all positions, the same for every channel: ``y = W x`` along the positions.

    Positions are in raster order. The matrix belongs to one grid: the model must be built with ``image_size``, and
    other sizes raise.

    Args:
        dim: channels.
        grid_size: the map's size, handed over by the backbone that was built with ``image_size``.
        spatial_dims: 1, 2 or 3.

    Raises:
        UserError: the map has another size than ``grid_size``.

    Cost: ``dim · N²`` MACs and ``N²`` parameters.

    Source: the spatial MLP of the hybrids of PoolFormer (arXiv:2111.11418), after ResMLP (arXiv:2105.03404); no bias.
    """

    includes = Includes(learned=True, position="pairs", reach="global")
    name = "spatial_fc"

    def __init__(self, dim: int, *, grid_size: Size, spatial_dims: int = 2) -> None:
        super().__init__(dim, grid_size=grid_size, spatial_dims=spatial_dims)
        self.fc = nn.Linear(self.positions, self.positions, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim, *grid_size)`` to the same shape."""
        self.check(x)
        return self.fc(x.flatten(2)).unflatten(2, self.grid_size)
