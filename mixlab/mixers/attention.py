from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixlab.cost import Cost, Size, linear, macs, softmax
from mixlab.errors import expected
from mixlab.mixers.base import Includes, Mixer, register_mixer


def heads_for(dim: int, head_dim: int, where: str) -> int:
    """Number of heads of size ``head_dim`` in ``dim`` channels.

    Raises:
        UserError: the head size does not divide the width.
    """
    if not isinstance(head_dim, int):
        raise expected(f"{where} head_dim", "a whole number", head_dim, "head_dim=16")
    if head_dim < 1 or dim % head_dim:
        divisors = [d for d in range(1, dim + 1) if dim % d == 0]
        hint = min(divisors, key=lambda d: (abs(d - head_dim), d))
        raise expected(f"{where} head_dim", f"a divisor of the width {dim}", head_dim, f"head_dim={hint}")
    return dim // head_dim


@register_mixer("attention")
class Attention(Mixer):
    """Full multi-head self-attention over all positions, without position information.

    ``y = W_o concat_h softmax(q_h k_h^T / sqrt(d)) v_h + b`` with ``[q k v] = W x``, positions in raster order. Global
    tokens, when there are any, attend and are attended like positions.

    Args:
        dim: channels; heads are ``dim / head_dim``.
        spatial_dims: 1, 2 or 3.
        head_dim: channels of a head, a divisor of ``dim``.
        qkv_bias: bias on queries, keys and values.
        proj_bias: bias on the output projection.

    Raises:
        UserError: ``head_dim`` does not divide ``dim``.

    Cost: ``4 N dim² + 2 N² dim`` MACs and ``heads`` softmaxes over ``N x N`` scores, for ``N`` positions and tokens.

    Source: Vaswani et al., 2017, as in the attention hybrids of PoolFormer (arXiv:2111.11418): no bias on q, k, v;
    heads of 32.
    """

    includes = Includes(projections=True, mixes_channels=True, learned=True, reach="global")
    uses = frozenset({"tokens"})

    def __init__(
        self,
        dim: int,
        *,
        spatial_dims: int = 2,
        head_dim: int = 32,
        qkv_bias: bool = False,
        proj_bias: bool = True,
    ) -> None:
        super().__init__(dim, spatial_dims=spatial_dims)
        self.head_dim = head_dim
        self.heads = heads_for(dim, head_dim, "attention")
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim, bias=proj_bias)

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """``(B, dim, *spatial)`` and tokens ``(B, G, dim)`` or None to the same shapes."""
        self.check(x)
        count = 0 if tokens is None else tokens.shape[1]
        sequence = x.flatten(2).transpose(1, 2)  # (B, N, C)
        if tokens is not None:
            sequence = torch.cat([tokens, sequence], dim=1)
        q, k, v = self.qkv(sequence).unflatten(2, (3, self.heads, self.head_dim)).permute(2, 0, 3, 1, 4)  # (B, h, N, d)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        mixed = self.proj(mixed)
        tokens_out = None if tokens is None else mixed[:, :count]
        return mixed[:, count:].transpose(1, 2).reshape(x.shape), tokens_out

    def cost(self, size: Size, tokens: int = 0) -> Cost:
        """Cost for a map of ``size`` and that many global tokens."""
        n, dim = math.prod(size) + tokens, self.dim
        qkv = linear(dim, 3 * dim, n, bias=self.qkv.bias is not None)
        proj = linear(dim, dim, n, bias=self.proj.bias is not None)
        scores = macs(n * n * dim, activations=self.heads * n * n)
        values = macs(n * n * dim, activations=n * dim)
        return qkv + scores + softmax(self.heads * n * n, self.heads * n) + values + proj
