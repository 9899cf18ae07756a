"""The classification head with one hidden layer of ConvFormer and CAFormer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mixlab.activations import ACTIVATIONS
from mixlab.cost import Cost, Size, linear, normalisation
from mixlab.heads.base import HEADS, Head, check_pool, pooled
from mixlab.norms import build_norm, norm_cost


@HEADS.register("mlp")
class MLPHead(Head):
    """Mean over positions, norm, then ``W_2 dropout(LN(act(W_1 x)))``.

    Args:
        dim: channels of the last map.
        num_classes: logits; 0 returns the normalised mean ``(B, dim)``.
        spatial_dims: 1, 2 or 3.
        norm: of the mean, a part of ``mixlab.norms.NORMS``, or None.
        ratio: hidden width is ``int(dim · ratio)``.
        act: a part of ``mixlab.activations.ACTIVATIONS``.
        eps: of the hidden LayerNorm.
        pool: ``avg`` for the mean, ``max`` for the greatest value, ``none`` for the normalised map (0 classes only).
        dropout: before the last layer.

    Source: Yu et al., MetaFormer Baselines for Vision (arXiv:2210.13452), official code.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        spatial_dims: int = 2,
        norm: str | Mapping[str, Any] | None = "layer_norm",
        ratio: float = 4.0,
        act: str | Mapping[str, Any] = "squared_relu",
        eps: float = 1e-5,
        pool: str = "avg",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.dim, self.hidden, self.eps, self.spatial_dims = dim, int(dim * ratio), eps, spatial_dims
        self.norm = build_norm(norm, dim, spatial_dims)
        self.act = ACTIVATIONS.build(act)
        self.dropout = nn.Dropout(dropout)
        self.fc1: nn.Linear | None = None
        self.hidden_norm: nn.LayerNorm | None = None
        self.fc2: nn.Linear | None = None
        self.reset(num_classes)

    def reset(self, num_classes: int) -> None:
        """A new hidden layer and classifier: the official code replaces both."""
        check_pool(self.pool, num_classes)
        self.num_classes = num_classes
        self.fc1 = self.hidden_norm = self.fc2 = None
        if num_classes > 0:
            self.fc1 = nn.Linear(self.dim, self.hidden)
            self.hidden_norm = nn.LayerNorm(self.hidden, eps=self.eps)
            self.fc2 = nn.Linear(self.hidden, num_classes)
            for layer in (self.fc1, self.fc2):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def pre_logits(self, x: Tensor) -> Tensor:
        """The normalised mean ``(B, dim)``."""
        x = self.norm(pooled(x, self.pool))
        return x if self.pool == "none" else x.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim, *spatial)`` to ``(B, num_classes)``."""
        x = self.pre_logits(x)
        if self.fc1 is None or self.hidden_norm is None or self.fc2 is None:
            return x
        return self.fc2(self.dropout(self.hidden_norm(self.act(self.fc1(x)))))

    def cost(self, size: Size) -> Cost:
        n = math.prod(size)
        if self.pool == "none":
            return norm_cost(self.norm, size)
        total = Cost(other_ops=self.dim * n, activations=self.dim) + norm_cost(self.norm, (1,))
        if not self.num_classes:
            return total
        act = Cost(other_ops=self.hidden, activations=self.hidden)
        norm = normalisation(self.hidden, 1, parameters=2 * self.hidden)
        return total + linear(self.dim, self.hidden, 1) + act + norm + linear(self.hidden, self.num_classes, 1)
