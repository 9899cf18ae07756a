from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mixlab.activations import ACTIVATIONS, is_watched, linear_after
from mixlab.channel_mixers.base import ChannelMixer, register_channel_mixer
from mixlab.cost import Cost, Size, linear
from mixlab.errors import expected
from mixlab.ops import Pointwise
from mixlab.ops.mlp import mlp


@register_channel_mixer("mlp")
class MLP(ChannelMixer):
    """Two linear layers on each position with an activation between: ``y = W_2 act(W_1 x + b_1) + b_2``.

    Args:
        dim: channels in and out.
        spatial_dims: 1, 2 or 3.
        ratio: hidden channels are ``int(dim · ratio)``.
        act: activation, a name or a part of ``mixlab.activations.ACTIVATIONS``; ``gelu`` is the exact erf form.
        bias: biases on both layers.
        dropout: dropout after the activation and after the second layer.

    Cost: ``2 N dim · hidden`` MACs and one other operation an element for the activation.

    Source: PoolFormer (arXiv:2111.11418), the usual transformer MLP.
    """

    def __init__(
        self,
        dim: int,
        *,
        spatial_dims: int = 2,
        ratio: float = 4.0,
        act: str | Mapping[str, Any] = "gelu",
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(dim, spatial_dims=spatial_dims)
        self.hidden = int(dim * ratio)
        if self.hidden < 1:
            raise expected("mlp ratio", f"at least one hidden channel for width {dim}", ratio, "4")
        self.fc1 = Pointwise(dim, self.hidden, bias=bias)
        self.act = ACTIVATIONS.build(act)
        self.fc2 = Pointwise(self.hidden, dim, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim, *spatial)`` to the same shape."""
        if (self.dropout.p == 0.0 or not self.training) and not is_watched(self.fc1):
            y = self._fused(x)
            return linear_after(self.act, self.fc1(x), self.fc2) if y is None else y
        return self.dropout(self.fc2(self.dropout(self.act(self.fc1(x)))))

    def _fused(self, x: Tensor) -> Tensor | None:
        """The result, where both layers and the activation can run together and nobody would miss their calls."""
        plain = type(self.act) is nn.GELU and self.act.approximate == "none" and not is_watched(self.act)
        if not (plain and type(self.fc1) is Pointwise is type(self.fc2)) or is_watched(self.fc2):
            return None
        return mlp(x, self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias)

    def cost(self, size: Size) -> Cost:
        n, bias = math.prod(size), self.fc1.bias is not None
        act = Cost(
            parameters=sum(p.numel() for p in self.act.parameters()),
            other_ops=self.hidden * n,
            activations=self.hidden * n,
        )
        return linear(self.dim, self.hidden, n, bias=bias) + act + linear(self.hidden, self.dim, n, bias=bias)
