from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from mixlab.activations import is_watched
from mixlab.channel_mixers.base import ChannelMixer, register_channel_mixer
from mixlab.cost import Cost, Size, convolution, linear
from mixlab.errors import expected
from mixlab.ops import Pointwise, pointwise
from mixlab.ops.convs import CONVS
from mixlab.ops.windows import PerAxis, odd_kernel


@register_channel_mixer("conv_glu")
class ConvGLU(ChannelMixer):
    """Gated linear unit whose gate looks at its neighbours: ``y = W_2 (gelu(conv(u)) · v) + b_2``.

    ``[u v] = W_1 x + b_1``; ``conv`` is depthwise. Global tokens have no neighbours and leave the convolution out.
    In 1D and 3D the convolution spans all axes (our extension; the paper has 2D).

    Args:
        dim: channels in and out.
        spatial_dims: 1, 2 or 3.
        ratio: ``u`` and ``v`` have ``int(2 int(dim · ratio) / 3)`` channels each, so that parameters are those of an
            MLP of that ratio.
        kernel_size: of the convolution; odd, an int or one per axis.
        dropout: dropout after the gate and after the second layer.

    Cost: for ``h`` hidden channels ``3 N dim · h + N h · prod(kernel_size)`` MACs, and two other operations a hidden
    element, for the activation and the gate.

    Source: TransNeXt, Shi (arXiv:2311.17132), section 3.4.
    """

    def __init__(
        self,
        dim: int,
        *,
        spatial_dims: int = 2,
        ratio: float = 8.0,
        kernel_size: PerAxis = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(dim, spatial_dims=spatial_dims)
        self.hidden = int(2 * int(dim * ratio) / 3)
        if self.hidden < 1:
            raise expected("conv_glu ratio", f"at least one hidden channel for width {dim}", ratio, "8")
        self.kernel_size = odd_kernel(kernel_size, spatial_dims, "conv_glu")
        padding = tuple(k // 2 for k in self.kernel_size)
        self.fc1 = Pointwise(dim, 2 * self.hidden)
        self.conv = CONVS[spatial_dims](self.hidden, self.hidden, self.kernel_size, padding=padding, groups=self.hidden)
        self.fc2 = Pointwise(self.hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim, *spatial)`` to the same shape."""
        u, v = self._halves(x)
        return self._gated(self.conv(u), v)

    def forward_tokens(self, tokens: Tensor) -> Tensor:
        """Global tokens ``(B, G, dim)``: everything but the convolution."""
        u, v = self._halves(tokens.transpose(1, 2))
        return self._gated(u, v).transpose(1, 2)

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Two products rather than one that is cut in two: each half lies in one piece for what follows."""
        if type(self.fc1) is not Pointwise or is_watched(self.fc1):
            return self.fc1(x).chunk(2, dim=1)
        (w_u, w_v), (b_u, b_v) = self.fc1.weight.chunk(2), self.fc1.bias.chunk(2)
        return pointwise(x, w_u, b_u), pointwise(x, w_v, b_v)

    def _gated(self, u: Tensor, v: Tensor) -> Tensor:
        return self.dropout(self.fc2(self.dropout(F.gelu(u) * v)))

    def cost(self, size: Size) -> Cost:
        conv = convolution(self.hidden, self.hidden, self.kernel_size, size, groups=self.hidden)
        return self._pointwise_cost(math.prod(size)) + conv

    def cost_tokens(self, count: int) -> Cost:
        """Cost of :meth:`forward_tokens`, parameters left out."""
        return self._pointwise_cost(count).again()

    def _pointwise_cost(self, n: int) -> Cost:
        gate = Cost(other_ops=2 * self.hidden * n, activations=2 * self.hidden * n)
        return linear(self.dim, 2 * self.hidden, n) + gate + linear(self.hidden, self.dim, n)
