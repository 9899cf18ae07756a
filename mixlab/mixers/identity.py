from __future__ import annotations

from torch import Tensor

from mixlab.cost import Cost, Size
from mixlab.mixers.base import Includes, Mixer, register_mixer


@register_mixer("identity")
class Identity(Mixer):
    """No mixing: ``y = x``. What remains is the frame, and the baseline that every mixer has to beat.

    Tokens still meet where patch embeddings overlap and in the head's mean.

    Cost: nothing.

    Source: IdentityFormer, Yu et al., MetaFormer Baselines for Vision (arXiv:2210.13452); the identity row of
    PoolFormer's ablation (arXiv:2111.11418).
    """

    includes = Includes()

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim, *spatial)`` to itself."""
        self.check(x)
        return x

    def cost(self, size: Size) -> Cost:
        return Cost()
