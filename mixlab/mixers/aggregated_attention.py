from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixlab.cost import Cost, Size, linear, macs, normalisation, softmax
from mixlab.mixers.attention import heads_for
from mixlab.mixers.base import Includes, Mixer, register_mixer
from mixlab.mixers.log_cpb import LogCPB, small_normal, temperature
from mixlab.norms import LayerNorm
from mixlab.ops import Pointwise
from mixlab.ops.aggregated import aggregated_attention, check_backend, log_keys
from mixlab.ops.pooled_grid import bin_entries, pool_to, pooled_size
from mixlab.ops.windows import PerAxis, clipped_pairs, odd_kernel, per_axis


class _Projection(Pointwise):
    """A 1x1 convolution that starts like the paper's convolutions, not like its linear layers."""

    keeps_init: ClassVar[bool] = True

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=math.sqrt(2 / self.out_features))
        nn.init.zeros_(self.bias)


@register_mixer("aggregated_attention")
class AggregatedAttention(Mixer):
    """Attention of each position to its window at full resolution and to the whole image, pooled, in one softmax.

    Cosine scores as in ``cosine_attention``, with the scale ``tau_h ln(m + P)`` for ``m`` neighbours inside the image
    and ``P`` pooled keys. Pooled keys and values come from ``LN(pool(gelu(W_s x)))``. The window's scores have a
    learned bias per offset, the pooled ones the continuous position bias. After the softmax the window's weights get
    ``q/|q| · t_j + b_j`` with learned tokens ``t_j``, one for each offset.

    In 1D and 3D the window and the pooling span all axes and the bias takes one coordinate per axis (our extension; the
    paper has 2D).

    Args:
        dim: channels; heads are ``dim / head_dim``.
        spatial_dims: 1, 2 or 3.
        kernel_size: odd window, an int or one per axis.
        head_dim: channels of a head, a divisor of ``dim``; TransNeXt has 24.
        sr_ratio: the pooled grid has ``n // sr_ratio`` positions, at least 1; an int or one per axis.
        pool_size: a fixed pooled grid instead, likewise; None for none.
        pretrain_size: grid that the bias measures distances by, see ``cosine_attention``.
        qkv_bias: bias on queries, keys and values.
        query_embedding: a learned vector a head, added to normalised queries.
        learnable_tokens: the weights after the softmax. Without both this is the paper's pixel-focused attention.
        backend: ``auto``, ``reference``, ``native`` or ``pure``, see :func:`mixlab.ops.local_attention`.

    Raises:
        UserError: ``head_dim`` does not divide ``dim``, a kernel size is even, or the backend is unknown.

    Cost: with ``N`` positions, ``R`` (position, neighbour) pairs inside the image and ``T`` distinct coordinate
    differences ``5 N dim² + 2 P dim² + 3 R dim + 2 N P dim + 512 (axes + heads) T`` MACs needed (``2 R dim`` without
    learnable tokens); computed ones have all offsets for ``R``, and one ``R dim`` more with learnable tokens, whose
    weights meet the values in a pass of their own; dense ones have ``2 N² dim`` for scores and sums.
    Other operations: 3 an element to normalise queries and keys (square, sum, divide), one to scale queries,
    ``heads (N + 1)`` for the scale, the activations, pooling (additions and a division a bin), the pooled map's norm,
    the softmax, and an addition for each weight after it.

    Source: TransNeXt, Shi (arXiv:2311.17132), the first three stages.
    """

    no_decay = ("temperature", "query_embedding", "relative_pos_bias_local")
    includes = Includes(projections=True, mixes_channels=True, learned=True, position="bias", reach="global")

    def __init__(
        self,
        dim: int,
        *,
        spatial_dims: int = 2,
        kernel_size: PerAxis = 3,
        head_dim: int = 32,
        sr_ratio: PerAxis = 2,
        pool_size: PerAxis | None = None,
        pretrain_size: PerAxis | None = None,
        qkv_bias: bool = True,
        query_embedding: bool = True,
        learnable_tokens: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__(dim, spatial_dims=spatial_dims)
        where = "aggregated_attention"
        self.kernel_size = odd_kernel(kernel_size, spatial_dims, where)
        self.head_dim = head_dim
        self.heads = heads_for(dim, head_dim, where)
        self.sr_ratio = per_axis(sr_ratio, spatial_dims, f"{where} sr_ratio")
        self.pool_size = None if pool_size is None else per_axis(pool_size, spatial_dims, f"{where} pool_size")
        self.backend = check_backend(backend, where)
        window = math.prod(self.kernel_size)
        self.q = Pointwise(dim, dim, bias=qkv_bias)
        self.kv = Pointwise(dim, 2 * dim, bias=qkv_bias)
        self.sr = _Projection(dim, dim)
        self.norm = LayerNorm(dim, eps=1e-5)
        self.proj = Pointwise(dim, dim)
        self.temperature = temperature(self.heads)
        self.query_embedding = small_normal(self.heads, 1, head_dim) if query_embedding else None
        self.relative_pos_bias_local = small_normal(self.heads, window, std=4e-4)
        self.learnable_tokens = small_normal(self.heads, head_dim, window) if learnable_tokens else None
        self.learnable_bias = nn.Parameter(torch.zeros(self.heads, 1, window)) if learnable_tokens else None
        self.cpb = LogCPB(self.heads, spatial_dims, pretrain_size, where)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim, *spatial)`` to the same shape."""
        self.check(x)
        size = tuple(x.shape[2:])
        pooled = pooled_size(size, self.sr_ratio, self.pool_size)
        k, v = self._keys_and_values(x)
        context = self.norm(pool_to(F.gelu(self.sr(x)), pooled).flatten(2))  # (B, C, P)
        pooled_k, pooled_v = self._keys_and_values(context)
        # The window's loop reads rows of pixels: positions innermost from here on.
        unit = F.normalize(self.q(x).unflatten(1, (self.heads, self.head_dim)).contiguous(), dim=2)
        mixed = aggregated_attention(
            self._scaled(unit, math.prod(pooled)), k, v, pooled_k, pooled_v, self.kernel_size,
            local_bias=self.relative_pos_bias_local, pooled_bias=self.cpb(size, pooled),
            extra=self._extra_weights(unit), backend=self.backend,
        )  # fmt: skip
        return self.proj(mixed.flatten(1, 2))

    def _keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised keys, and values, ``(B, heads, d, *spatial)``."""
        k, v = self.kv(x).unflatten(1, (2, self.heads, self.head_dim)).unbind(1)
        return F.normalize(k.contiguous(), dim=2), v

    def _scaled(self, unit: Tensor, pooled: int) -> Tensor:
        """Normalised queries with their embedding and their scale."""
        ones = (1,) * self.spatial_dims
        length = log_keys(tuple(unit.shape[3:]), self.kernel_size, pooled, dtype=unit.dtype, device=unit.device)
        scale = F.softplus(self.temperature).view(-1, 1, *ones) * length  # (heads, 1, *spatial)
        if self.query_embedding is not None:
            unit = unit + self.query_embedding.view(self.heads, -1, *ones)
        return unit * scale

    def _extra_weights(self, unit: Tensor) -> Tensor | None:
        """(B, heads, K, N)"""
        if self.learnable_tokens is None or self.learnable_bias is None:
            return None
        return self.learnable_tokens.transpose(1, 2) @ unit.flatten(3) + self.learnable_bias.transpose(1, 2)

    def cost(self, size: Size) -> Cost:
        n, dim, heads = math.prod(size), self.dim, self.heads
        grid = pooled_size(size, self.sr_ratio, self.pool_size)
        p, window = math.prod(grid), math.prod(self.kernel_size)
        pairs = clipped_pairs(size, self.kernel_size, (1,) * len(size))
        own = sum(t.numel() for t in self.parameters(recurse=False))
        bias = self.q.bias is not None
        projections = linear(dim, dim, n, bias=bias) + linear(dim, 2 * dim, n, bias=bias) + linear(dim, dim, n)
        context = macs(2 * dim * dim * p, activations=2 * dim * p)  # keys and values, by the same weights once more
        context += linear(dim, dim, n) + Cost(other_ops=n * dim, activations=n * dim)
        context += Cost(other_ops=dim * bin_entries(size, grid), activations=dim * p)
        context += normalisation(dim, p, parameters=2 * dim)
        unit = Cost(other_ops=3 * dim * (2 * n + p), activations=dim * (2 * n + p))
        scale = Cost(other_ops=heads * (1 + n) + n * dim, activations=heads * (1 + n) + n * dim)
        extra = Cost()
        if self.learnable_tokens is not None:
            extra = Cost(
                macs_needed=pairs * dim,
                macs_computed=2 * n * window * dim,  # their scores, and a pass over the values of their own
                macs_dense=pairs * dim,
                other_ops=heads * pairs,
                activations=2 * heads * pairs,
            )
        entries = pairs + n * p
        attention = Cost(
            parameters=own,
            macs_needed=2 * entries * dim,
            macs_computed=2 * n * (window + p) * dim,
            macs_dense=2 * n * n * dim,
            activations=heads * entries + n * dim,
        )
        weights = softmax(heads * entries, heads * n)
        return projections + context + unit + scale + attention + weights + extra + self.cpb.cost(size, grid)
