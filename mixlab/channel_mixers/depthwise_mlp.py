from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mixlab.activations import ACTIVATIONS
from mixlab.channel_mixers.base import ChannelMixer, register_channel_mixer
from mixlab.cost import Cost, Size, convolution, linear
from mixlab.errors import expected
from mixlab.ops import Pointwise
from mixlab.ops.convs import CONVS
from mixlab.ops.windows import PerAxis, odd_kernel


@register_channel_mixer("depthwise_mlp")
class DepthwiseMLP(ChannelMixer):
    """An MLP with a depthwise convolution beside the shortcut between its layers: ``y = W_2 (a + dw(a)) + b_2``.

    ``a = act(W_1 x + b_1)`` is the hidden map. Global tokens, which have no neighbours, take ``W_2 a + b_2``. The paper
    has 2D; in 1D and 3D the window has one and three axes.

    Args:
        dim: channels in and out.
        spatial_dims: 1, 2 or 3.
        ratio: hidden channels are ``int(dim · ratio)``.
        kernel_size: odd window of the convolution, an int or one per axis.
        act: activation, a name or a part of ``mixlab.activations.ACTIVATIONS``; ``gelu`` is the exact erf form.
        dropout: dropout after the activation and after the second layer.

    Raises:
        UserError: no hidden channel, or an even kernel.

    Cost: ``2 N dim · hidden + prod(kernel_size) N hidden`` MACs and one other operation an element for the activation;
    the shortcut counts nothing.

    Source: RMT (arXiv:2309.11523), its feed-forward network.
    """

    def __init__(
        self,
        dim: int,
        *,
        spatial_dims: int = 2,
        ratio: float = 4.0,
        kernel_size: PerAxis = 3,
        act: str | Mapping[str, Any] = "gelu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(dim, spatial_dims=spatial_dims)
        self.hidden = int(dim * ratio)
        if self.hidden < 1:
            raise expected("depthwise_mlp ratio", f"at least one hidden channel for width {dim}", ratio, "4")
        self.kernel_size = odd_kernel(kernel_size, spatial_dims, "depthwise_mlp")
        padding = tuple(k // 2 for k in self.kernel_size)
        self.fc1 = Pointwise(dim, self.hidden)
        self.act = ACTIVATIONS.build(act)
        self.conv = CONVS[spatial_dims](self.hidden, self.hidden, self.kernel_size, padding=padding, groups=self.hidden)
        self.fc2 = Pointwise(self.hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim, *spatial)`` to the same shape."""
        a = self.dropout(self.act(self.fc1(x)))
        return self.dropout(self.fc2(a + self.conv(a)))

    def forward_tokens(self, tokens: Tensor) -> Tensor:
        """The pointwise part: ``(B, G, dim)`` to the same shape."""
        maps = tokens.transpose(1, 2)  # (B, dim, G), a map of one axis
        return self.dropout(self.fc2(self.dropout(self.act(self.fc1(maps))))).transpose(1, 2)

    def cost(self, size: Size) -> Cost:
        conv = convolution(self.hidden, self.hidden, self.kernel_size, size, groups=self.hidden)
        return self._pointwise_cost(math.prod(size)) + conv

    def cost_tokens(self, count: int) -> Cost:
        """Cost of :meth:`forward_tokens`, parameters left out."""
        return self._pointwise_cost(count).again()

    def _pointwise_cost(self, n: int) -> Cost:
        hidden = self.hidden
        act = Cost(
            parameters=sum(p.numel() for p in self.act.parameters()), other_ops=hidden * n, activations=hidden * n
        )
        return linear(self.dim, hidden, n) + act + linear(hidden, self.dim, n)
