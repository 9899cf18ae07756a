"""The contract that every token mixer keeps."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from mixlab.cost import Cost, Size
from mixlab.ops.windows import check_map, check_spatial_dims
from mixlab.registry import Registry


@dataclass(frozen=True)
class Includes:
    """What a mixer contains beside the mixing itself; published mixers differ here, and a comparison must say so."""

    subtracts_input: bool = False
    """Returns ``mixed - x`` (PoolFormer does, to compensate the block's residual)."""
    projections: bool = False
    """Has linear layers on the channels of each position."""
    mixes_channels: bool = False
    """A result's channel depends on other channels of the input."""
    learned: bool = False
    """How tokens are mixed is learned or depends on the input."""
    position: str = "none"
    """Position information it adds: ``none``, ``window`` (weights per offset), ``bias`` (on scores), ``pairs`` (weights
    per pair of positions), ``embedding``."""
    reach: str = "position"
    """How far one application looks: ``position``, ``window``, ``two windows`` (one after the other) or ``global``."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Mixer(nn.Module):
    """Exchanges information between positions: ``(B, dim, *spatial)`` to the same shape.

    A mixer works at any size of at least one token, for 1, 2 and 3 spatial axes, on any device and dtype. Its
    constructor is ``Mixer(dim, *, spatial_dims=2, **own_options)``.

    A mixer with ``uses = {"tokens"}`` also takes global tokens ``(B, G, dim)``: ``forward(x, tokens=None)`` returns
    ``(x, tokens)``, and its cost is ``cost(size, tokens=0)`` with their number. A mixer with ``needs_grid = True`` has
    parameters of the grid's size and takes ``grid_size``. One with ``keeps_init = True`` sets its own parameters; in
    others the backbone initialises linear layers.
    """

    includes: ClassVar[Includes] = Includes()
    uses: ClassVar[frozenset[str]] = frozenset()
    needs_grid: ClassVar[bool] = False
    keeps_init: ClassVar[bool] = False
    extensions: ClassVar[tuple[str, ...]] = ()
    """Names of parameters that options add; reports count them apart."""

    def __init__(self, dim: int, *, spatial_dims: int = 2) -> None:
        super().__init__()
        self.dim = dim
        self.spatial_dims = check_spatial_dims(spatial_dims, type(self).__name__)

    def check(self, x: Tensor) -> None:
        """Raise a UserError unless ``x`` is ``(B, dim, *spatial)``."""
        check_map(x.shape, self.dim, self.spatial_dims, type(self).__name__)

    def cost(self, size: Size) -> Cost:
        """Cost of one application to one map of ``size`` (see :mod:`mixlab.cost` for what is counted)."""
        raise NotImplementedError(
            f"{type(self).__name__} does not state its cost: define cost(size) -> mixlab.cost.Cost"
        )


MIXERS: Registry[Mixer] = Registry("token mixer", "mixlab.mixers")
register_mixer = MIXERS.register
