from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixlab.cost import Cost, Size, linear, macs, softmax
from mixlab.mixers.attention import heads_for
from mixlab.mixers.base import Includes, Mixer, register_mixer
from mixlab.mixers.log_cpb import LogCPB, small_normal, temperature
from mixlab.ops.windows import PerAxis


@register_mixer("cosine_attention")
class CosineAttention(Mixer):
    """Full attention by cosines, scaled with the number of keys, with query embedding and continuous position bias.

    ``y = W_o concat_h softmax(tau_h ln(N) (q/|q| + e_h) k^T/|k| + bias_h) v + b`` with ``[q k v] = W x + b``. The scale
    ``ln(N)`` keeps the weights' entropy when an image has more positions; ``tau_h = softplus(T_h)`` is learned; the
    bias is an MLP of each pair's log-spaced coordinate difference, so any size works.

    In 1D and 3D the bias takes one coordinate per axis (our extension; the paper has 2D).

    Args:
        dim: channels; heads are ``dim / head_dim``.
        spatial_dims: 1, 2 or 3.
        head_dim: channels of a head, a divisor of ``dim``; TransNeXt has 24.
        pretrain_size: grid, an int or one per axis, that the bias measures distances by: that of pretraining when a
            model is used at another size. None for the grid at hand.
        qkv_bias: bias on queries, keys and values.

    Raises:
        UserError: ``head_dim`` does not divide ``dim``.

    Cost: ``4 N dim² + 2 N² dim`` MACs, and for ``T`` distinct differences (product of ``2 n - 1`` over axes)
    ``512 (axes + heads) T``. Other operations: 3 an element to normalise queries and keys (square, sum, divide), one to
    scale queries, 2 a head for its scale, 512 an entry of the table (ReLU), and the softmax.

    Source: TransNeXt, Shi (arXiv:2311.17132), the last stage.
    """

    no_decay = ("temperature", "query_embedding")
    includes = Includes(projections=True, mixes_channels=True, learned=True, position="bias", reach="global")

    def __init__(
        self,
        dim: int,
        *,
        spatial_dims: int = 2,
        head_dim: int = 32,
        pretrain_size: PerAxis | None = None,
        qkv_bias: bool = True,
    ) -> None:
        super().__init__(dim, spatial_dims=spatial_dims)
        self.head_dim = head_dim
        self.heads = heads_for(dim, head_dim, "cosine_attention")
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.temperature = temperature(self.heads)
        self.query_embedding = small_normal(self.heads, 1, head_dim)
        self.cpb = LogCPB(self.heads, spatial_dims, pretrain_size, "cosine_attention")

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim, *spatial)`` to the same shape."""
        self.check(x)
        size = tuple(x.shape[2:])
        sequence = x.flatten(2).transpose(1, 2)  # (B, N, C)
        q, k, v = self.qkv(sequence).unflatten(2, (3, self.heads, self.head_dim)).permute(2, 0, 3, 1, 4)  # (B, h, N, d)
        scale = F.softplus(self.temperature) * torch.full_like(self.temperature, math.prod(size)).log()
        q = (F.normalize(q, dim=3) + self.query_embedding) * scale
        bias = self.cpb(size).transpose(1, 2)  # (heads, N queries, N keys)
        mixed = F.scaled_dot_product_attention(
            q, F.normalize(k, dim=3), v, attn_mask=bias.to(q.dtype).unsqueeze(0), scale=1.0
        )
        mixed = mixed.transpose(1, 2)
        if torch.compiler.is_exporting():  # other runtimes lay the heads out differently, and then this is no view
            mixed = mixed.clone(memory_format=torch.contiguous_format)
        mixed = self.proj(mixed.flatten(2))
        return mixed.transpose(1, 2).unflatten(2, size)

    def cost(self, size: Size) -> Cost:
        n, dim = math.prod(size), self.dim
        own = Cost(
            parameters=self.temperature.numel() + self.query_embedding.numel(),
            other_ops=2 * self.heads,  # softplus, times ln(N)
            activations=2 * self.heads,
        )
        unit = Cost(other_ops=2 * 3 * n * dim + n * dim, activations=3 * n * dim)
        projections = linear(dim, 3 * dim, n, bias=self.qkv.bias is not None) + linear(dim, dim, n)
        scores = macs(n * n * dim, activations=self.heads * n * n)
        values = macs(n * n * dim, activations=n * dim)
        weights = softmax(self.heads * n * n, self.heads * n)
        return own + unit + projections + scores + weights + values + self.cpb.cost(size)
