"""The contract that every channel mixer keeps: the mixers' own, ``(B, dim, *spatial)`` to the same shape."""

from __future__ import annotations

from torch import Tensor, nn

from mixlab.cost import Cost, Size
from mixlab.ops.windows import check_spatial_dims
from mixlab.registry import Registry


class ChannelMixer(nn.Module):
    """Works on each position's channels. Constructor: ``ChannelMixer(dim, *, spatial_dims=2, **own_options)``."""

    def __init__(self, dim: int, *, spatial_dims: int = 2) -> None:
        super().__init__()
        self.dim = dim
        self.spatial_dims = check_spatial_dims(spatial_dims, type(self).__name__)

    def forward_tokens(self, tokens: Tensor) -> Tensor:
        """Global tokens ``(B, G, dim)``, each as a map of one position.

        A channel mixer with a spatial part overrides this with its pointwise part.
        """
        batch, count, dim = tokens.shape
        maps = tokens.reshape(batch * count, dim, *(1,) * self.spatial_dims)
        return self(maps).reshape(batch, count, dim)

    def cost(self, size: Size) -> Cost:
        """Cost of one application to one map of ``size`` (see :mod:`mixlab.cost`)."""
        raise NotImplementedError(
            f"{type(self).__name__} does not state its cost: define cost(size) -> mixlab.cost.Cost"
        )

    def cost_tokens(self, count: int) -> Cost:
        """Cost of :meth:`forward_tokens` for ``count`` tokens, parameters left out; overridden together with it."""
        return self.cost((count, *(1,) * (self.spatial_dims - 1))).again()


CHANNEL_MIXERS: Registry[ChannelMixer] = Registry("channel mixer", "mixlab.channel_mixers")
register_channel_mixer = CHANNEL_MIXERS.register
