"""The usual classification head: norm, mean over positions, linear."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mixlab.cost import Cost, Size, linear
from mixlab.errors import expected
from mixlab.heads.base import HEADS, Head, check_pool, pooled
from mixlab.norms import build_norm, norm_cost


@HEADS.register("linear")
class LinearHead(Head):
    """Norm and mean over positions (or their greatest value), in either order, then a linear layer.

    Args:
        dim: channels of the last map.
        num_classes: logits; 0 returns the pooled features.
        spatial_dims: 1, 2 or 3.
        norm: a part of ``mixlab.norms.NORMS``, or None.
        order: ``norm_pool`` (PoolFormer: the norm sees the map) or ``pool_norm`` (most others). With GroupNorm the two
            differ.
        pool: ``avg`` for the mean, ``max`` for the greatest value, ``none`` for the normalised map (0 classes only).
        dropout: on the pooled features.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        spatial_dims: int = 2,
        norm: str | Mapping[str, Any] | None = "group_norm",
        order: str = "norm_pool",
        pool: str = "avg",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if order not in ("norm_pool", "pool_norm"):
            raise expected("head order", "'norm_pool' or 'pool_norm'", order)
        self.dim, self.order, self.pool, self.spatial_dims = dim, order, pool, spatial_dims
        self.norm = build_norm(norm, dim, spatial_dims)
        self.dropout = nn.Dropout(dropout)
        self.fc: nn.Module = nn.Identity()
        self.reset(num_classes)

    def reset(self, num_classes: int) -> None:
        check_pool(self.pool, num_classes)
        self.num_classes = num_classes
        self.fc = nn.Linear(self.dim, num_classes) if num_classes > 0 else nn.Identity()
        if isinstance(self.fc, nn.Linear):
            nn.init.trunc_normal_(self.fc.weight, std=0.02)
            nn.init.zeros_(self.fc.bias)

    def pre_logits(self, x: Tensor) -> Tensor:
        if self.order == "norm_pool":
            x = pooled(self.norm(x), self.pool)
        else:
            x = self.norm(pooled(x, self.pool))
        return self.dropout(x if self.pool == "none" else x.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pre_logits(x))

    def cost(self, size: Size) -> Cost:
        n = math.prod(size)
        norm = norm_cost(self.norm, size if self.order == "norm_pool" or self.pool == "none" else (1,))
        pool = Cost() if self.pool == "none" else Cost(other_ops=self.dim * n, activations=self.dim)
        return norm + pool + (linear(self.dim, self.num_classes, 1) if self.num_classes else Cost())
