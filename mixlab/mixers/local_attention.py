from __future__ import annotations

import math

import torch
from torch import Tensor

from mixlab.activations import is_watched
from mixlab.cost import Cost, Size, linear, softmax
from mixlab.mixers.attention import heads_for
from mixlab.mixers.base import Includes, Mixer, register_mixer
from mixlab.ops import Pointwise, local_attention
from mixlab.ops import local_attention_native as native
from mixlab.ops.local_attention_choice import computed_pairs
from mixlab.ops.pointwise import pointwise_from_planar, pointwise_planar
from mixlab.ops.windows import PerAxis, clipped_pairs, odd_kernel, per_axis

PLANAR_POSITIONS = 256
"""Fewer are as fast or faster with channels innermost (14 x 14: as fast; 7 x 7: half the time)."""


@register_mixer("local_attention")
class LocalAttention(Mixer):
    """Multi-head self-attention in a window centred on each position, clipped at the image's borders.

    ``y_i = W_o concat_h sum_j softmax_j(q_i k_j / sqrt(d)) v_j + b`` over the neighbours ``j`` of ``i`` inside the
    image. It is local like a convolution and looks at its input like attention. Where the window covers the grid it
    equals full attention.

    Args:
        dim: channels; heads are ``dim / head_dim``.
        spatial_dims: 1, 2 or 3.
        kernel_size: odd window, an int or one per axis.
        dilation: distance between neighbours in the window, likewise.
        head_dim: channels of a head, a divisor of ``dim``.
        qkv_bias: bias on queries, keys and values.
        proj_bias: bias on the output projection.
        subtract_input: return ``y - x``, as the study did to replace pooling.
        backend: of :func:`mixlab.ops.local_attention`.

    Raises:
        UserError: ``head_dim`` does not divide ``dim``, or a kernel size is even.

    Cost: ``4 N dim² + 2 P dim`` MACs needed, for ``P`` (position, neighbour) pairs inside the image; the ``computed``
    number is that of the PyTorch-only path for the grid (a fused kernel computes fewer), the ``dense`` one has ``N²``
    for ``P``.

    Source: the study's local self-attention; related to stand-alone self-attention (arXiv:1906.05909), and to
    neighbourhood attention (arXiv:2204.07143), which shifts windows inward at borders instead.
    """

    includes = Includes(projections=True, mixes_channels=True, learned=True, reach="window")

    def __init__(
        self,
        dim: int,
        *,
        spatial_dims: int = 2,
        kernel_size: PerAxis = 3,
        dilation: PerAxis = 1,
        head_dim: int = 16,
        qkv_bias: bool = False,
        proj_bias: bool = True,
        subtract_input: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__(dim, spatial_dims=spatial_dims)
        self.kernel_size = odd_kernel(kernel_size, spatial_dims, "local_attention")
        self.dilation = per_axis(dilation, spatial_dims, "local_attention dilation")
        self.head_dim = head_dim
        self.heads = heads_for(dim, head_dim, "local_attention")
        self.subtract_input = subtract_input
        self.backend = backend
        self.qkv = Pointwise(dim, 3 * dim, bias=qkv_bias)
        self.proj = Pointwise(dim, dim, bias=proj_bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim, *spatial)`` to the same shape."""
        self.check(x)
        planar = self._planar(x)
        qkv = pointwise_planar(x, self.qkv.weight, self.qkv.bias) if planar else self.qkv(x)
        q, k, v = qkv.unflatten(1, (3, self.heads, self.head_dim)).unbind(1)  # (B, heads, d, *spatial)
        mixed = local_attention(q, k, v, self.kernel_size, dilation=self.dilation, backend=self.backend)
        mixed = mixed.flatten(1, 2)
        y = pointwise_from_planar(mixed, self.proj.weight, self.proj.bias) if planar else self.proj(mixed)
        return y - x if self.subtract_input else y

    def _planar(self, x: Tensor) -> bool:
        """The projections turn the map for the native kernel, which is faster with positions innermost."""
        return (
            not torch.compiler.is_compiling()  # first: sizes may be symbols
            and self.backend in ("auto", "native")
            and x.is_cpu
            and x.dtype is torch.float32
            and math.prod(x.shape[2:]) >= PLANAR_POSITIONS
            and not torch.is_autocast_enabled("cpu")
            and native.unavailable() is None
            and all(type(layer) is Pointwise and not is_watched(layer) for layer in (self.qkv, self.proj))
        )

    def cost(self, size: Size) -> Cost:
        n, dim = math.prod(size), self.dim
        needed = clipped_pairs(size, self.kernel_size, self.dilation)
        if self.backend == "reference":
            computed = n * math.prod(self.kernel_size)  # it gathers whole windows
        else:
            computed = computed_pairs(size, self.kernel_size, self.dilation)
        attention = Cost(0, 2 * needed * dim, 2 * computed * dim, 2 * n * n * dim, 0, self.heads * needed + n * dim)
        qkv = linear(dim, 3 * dim, n, bias=self.qkv.bias is not None)
        proj = linear(dim, dim, n, bias=self.proj.bias is not None)
        subtraction = Cost(other_ops=n * dim, activations=n * dim) if self.subtract_input else Cost()
        return qkv + attention + softmax(self.heads * needed, self.heads * n) + proj + subtraction
