"""A head that widens the channels of every position before the mean."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mixlab.cost import Cost, Size, linear
from mixlab.errors import Quoted, expected
from mixlab.heads.base import HEADS, Head, check_pool, pooled
from mixlab.norms import batch_norm, norm_cost
from mixlab.ops import Pointwise

AUXILIARY_SHARE = 0.5  # of the greatest token logits in the logits


@HEADS.register("projected")
class ProjectedHead(Head):
    """Linear layer on each position, BatchNorm, SiLU, mean (or maximum) over positions, linear layer.

    Args:
        dim: channels of the last map.
        num_classes: logits; 0 returns the pooled features ``(B, features)``.
        spatial_dims: 1, 2 or 3.
        features: channels after the first layer.
        token_labels: a second classifier on every position of the last map; half of the greatest of its logits is
            added to the logits, and :meth:`token_logits` returns them for a loss with a label a position.
        pool: ``avg`` for the mean, ``max`` for the greatest value, ``none`` for the widened map (0 classes only).
        dropout: on the pooled features.

    Source: RMT (arXiv:2309.11523); token labels are from Jiang et al. (arXiv:2104.10858).
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        spatial_dims: int = 2,
        features: int = 1024,
        token_labels: bool = False,
        pool: str = "avg",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if features < 1:
            raise expected("head features", "at least 1", features, "features=1024")
        self.dim, self.features, self.token_labels, self.pool = dim, features, token_labels, pool
        self.proj = Pointwise(dim, features)
        self.norm = batch_norm(features, spatial_dims=spatial_dims)
        self.act = nn.SiLU()
        self.dropout = nn.Dropout(dropout)
        self.fc: nn.Module = nn.Identity()
        self.aux: nn.Module | None = None
        self.reset(num_classes)

    def reset(self, num_classes: int) -> None:
        check_pool(self.pool, num_classes)
        self.num_classes = num_classes
        self.fc = nn.Linear(self.features, num_classes) if num_classes > 0 else nn.Identity()
        self.aux = Pointwise(self.dim, num_classes) if num_classes > 0 and self.token_labels else None
        for layer in (self.fc, self.aux):
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def pre_logits(self, x: Tensor) -> Tensor:
        x = pooled(self.act(self.norm(self.proj(x))), self.pool)
        return self.dropout(x if self.pool == "none" else x.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim, *spatial)`` to ``(B, num_classes)``, or to :meth:`pre_logits` without classes."""
        logits = self.fc(self.pre_logits(x))
        if self.aux is None:
            return logits
        return torch.add(logits, self.aux(x).flatten(2).amax(2), alpha=AUXILIARY_SHARE)

    def token_logits(self, x: Tensor) -> Tensor:
        """Logits of every position ``(B, num_classes, *spatial)``, of the last map.

        Raises:
            UserError: the head has no such classifier.
        """
        if self.aux is None:
            got = Quoted(f"token_labels={self.token_labels}, num_classes={self.num_classes}")
            raise expected("token_logits", "a head with token labels and classes", got, "token_labels=True")
        return self.aux(x)

    def cost(self, size: Size) -> Cost:
        n, features, classes = math.prod(size), self.features, self.num_classes
        act = Cost(other_ops=features * n, activations=features * n)
        pool = Cost() if self.pool == "none" else Cost(other_ops=features * n, activations=features)
        total = linear(self.dim, features, n) + norm_cost(self.norm, size) + act + pool
        if classes:
            total += linear(features, classes, 1)
        if self.aux is not None:  # comparisons for the greatest, and a product
            total += linear(self.dim, classes, n) + Cost(other_ops=classes * n, activations=classes)
        return total
