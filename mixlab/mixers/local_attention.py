from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from mixlab.activations import is_watched
from mixlab.cost import Cost, Size, linear, softmax
from mixlab.mixers.attention import heads_for
from mixlab.mixers.attention_extensions import (
    attend_everything,
    check_backend,
    check_flag,
    check_slopes,
    check_softcap,
    slope_bias,
    unit_rms,
    window_pairs,
)
from mixlab.mixers.base import Includes, Mixer, register_mixer
from mixlab.ops import Pointwise, local_attention
from mixlab.ops import local_attention_native as native
from mixlab.ops.local_attention_choice import choose_path, path_pairs
from mixlab.ops.local_attention_problem import check_window, wide
from mixlab.ops.pointwise import pointwise_from_planar, pointwise_planar
from mixlab.ops.windows import PerAxis, check_spatial_dims

PLANAR_POSITIONS = 256
"""Fewer are as fast or faster with channels innermost (14 x 14: as fast; 7 x 7: half the time)."""


@register_mixer("local_attention")
class LocalAttention(Mixer):
    """Multi-head self-attention in a window around each position.

    ``y_i = W_o concat_h sum_j softmax_j(q_i k_j / sqrt(d)) v_j + b`` over the neighbours ``j`` of ``i`` inside the
    image. It is local like a convolution and looks at its input like attention. Where the window covers the grid it
    equals full attention.

    **Extensions**, all of them off by default and free to combine; everything is in the one softmax:
    ``score_ij = cap(g_h q_i k_j / sqrt(d) + slope_h (j - i) + table_h[j - i])``.

    * ``slopes``: a fixed bias, linear in the signed offset from query to key in positions (dilation included). Heads
      take the directions +x, -x, +y, -y (in 3D then +z, -z) in turn, x being the last axis; with fewer heads the later
      directions are missing. No parameters.
    * ``relative_bias``: a learned table with an entry a head and offset, zeros at the start. Parameters:
      ``heads prod(kernel)``, with shifted borders ``heads prod(2 kernel - 1)``.
    * ``qk_norm``: queries and keys of each head divided by their root mean square, and a learned factor ``g_h`` a head
      on the scores, one at the start; without it ``g_h`` is one. Parameters: ``heads``.
    * ``softcap``: scores, biases included, bounded by ``softcap tanh(score / softcap)``. No parameters.
    * Global tokens (``tokens``, of the backbone's ``global_tokens``) are further keys of every position, and attend to
      all positions and all tokens, through the same projections, norm and soft cap. They have no place, so that slopes
      and table are zero for them. No parameters here.

    Args:
        dim: channels; heads are ``dim / head_dim``.
        spatial_dims: 1, 2 or 3.
        kernel_size: odd window, an int or one per axis.
        dilation: distance between neighbours in the window, likewise.
        head_dim: channels of a head, a divisor of ``dim``.
        qkv_bias: bias on queries, keys and values.
        proj_bias: bias on the output projection.
        subtract_input: return ``y - x``, as the study did to replace pooling; of global tokens likewise.
        border: ``clip``: the window is centred, and neighbours outside the image do not exist; ``shift``: it moves
            inward, so that every position keeps all its keys (see :mod:`mixlab.ops.local_attention`).
        slopes: see above; true for the study's 0.1, or a number.
        relative_bias: see above.
        qk_norm: see above.
        softcap: see above; a positive number, or None for no bound.
        backend: of :func:`mixlab.ops.local_attention`.

    Raises:
        UserError: ``head_dim`` does not divide ``dim``, a kernel size is even, an option has no such value, or the
            backend asked for by name (``bands``, ``natten``) does not compute a bias, a soft cap or this border.

    Cost: ``4 (N + G) dim² + 2 (P + 2 N G + G²) dim`` MACs needed, for ``N`` positions, ``G`` global tokens and ``P``
    (position, neighbour) pairs inside the image; the ``computed`` number is that of the PyTorch-only path for the grid
    (a fused kernel computes fewer), the ``dense`` one has ``N²`` for ``P``. Other operations: the softmax; with
    ``qk_norm`` 3 an element of queries and keys (square, sum, divide) and one to scale queries; with ``softcap`` 3 a
    score.

    Source: the study's local self-attention and its extensions; related to stand-alone self-attention
    (arXiv:1906.05909), and to neighbourhood attention (arXiv:2204.07143), which shifts windows inward at borders.
    Normalised queries and keys: arXiv:2010.04245, with the root mean square for the norm. Soft cap: arXiv:2408.00118.
    """

    includes = Includes(projections=True, mixes_channels=True, learned=True, reach="window")
    uses = frozenset({"tokens"})
    extensions = ("qk_scale", "relative_bias")

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
        border: str = "clip",
        slopes: bool | float = False,
        relative_bias: bool = False,
        qk_norm: bool = False,
        softcap: float | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__(dim, spatial_dims=spatial_dims)
        where = "local_attention"
        self.window = check_window(check_spatial_dims(spatial_dims, where), kernel_size, dilation, border, where)
        self.kernel_size, self.dilation, self.border = self.window
        self.head_dim = head_dim
        self.heads = heads_for(dim, head_dim, where)
        self.subtract_input = subtract_input
        self.slopes = check_slopes(slopes, where)
        self.softcap = check_softcap(softcap, where)
        biased = check_flag(relative_bias, f"{where} relative_bias") or self.slopes != 0
        given = {"a shifted border": border == "shift", "a bias": biased, "a soft cap": self.softcap is not None}
        check_backend(backend, given, where)
        self.backend = backend
        self.qkv = Pointwise(dim, 3 * dim, bias=qkv_bias)
        self.proj = Pointwise(dim, dim, bias=proj_bias)
        normed = check_flag(qk_norm, f"{where} qk_norm")
        self.qk_scale = nn.Parameter(torch.ones(self.heads)) if normed else None
        shape = (self.heads, *self.window.bias_shape())
        self.relative_bias = nn.Parameter(torch.zeros(shape)) if relative_bias else None
        self.no_decay = tuple(name for name in self.extensions if getattr(self, name) is not None)
        if biased:
            self.includes = replace(type(self).includes, position="bias")  # type: ignore[misc]

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """``(B, dim, *spatial)`` and global tokens ``(B, G, dim)`` or None, to the same shapes."""
        self.check(x)
        planar = self._planar(x)
        qkv = pointwise_planar(x, self.qkv.weight, self.qkv.bias) if planar else self.qkv(x)
        q, k, v = self._heads(qkv)  # (B, heads, d, *spatial)
        near = None
        if tokens is not None:
            token_q, token_k, token_v = (t.transpose(2, 3) for t in self._heads(self.qkv(tokens.transpose(1, 2))))
            near = (token_k, token_v)  # (B, heads, G, d)
            tokens_out = attend_everything(token_q, k, v, near, self.softcap).transpose(1, 2).flatten(2)
        mixed = local_attention(
            q, k, v, self.kernel_size, dilation=self.dilation, border=self.border, bias=self._bias(x),
            softcap=self.softcap, extra_kv=near, backend=self.backend,
        ).flatten(1, 2)  # fmt: skip
        y = pointwise_from_planar(mixed, self.proj.weight, self.proj.bias) if planar else self.proj(mixed)
        y = y - x if self.subtract_input else y
        if tokens is None:
            return y, None
        mixed_tokens = self.proj(tokens_out.transpose(1, 2)).transpose(1, 2)
        return y, mixed_tokens - tokens if self.subtract_input else mixed_tokens

    def _heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(B, 3 dim, ...)`` to three of ``(B, heads, d, ...)``, queries and keys normalised if they shall be."""
        q, k, v = qkv.unflatten(1, (3, self.heads, self.head_dim)).unbind(1)
        if self.qk_scale is not None:
            scale = self.qk_scale.to(q.dtype).view(-1, *(1,) * (q.ndim - 2))
            q, k = unit_rms(q) * scale, unit_rms(k)
        return q, k, v

    def _bias(self, x: Tensor) -> Tensor | None:
        """Slopes and table together, an entry a head and offset."""
        if self.slopes == 0:
            return self.relative_bias
        slopes = slope_bias(self.heads, self.window, self.slopes, dtype=wide(x.dtype), device=x.device)
        return slopes if self.relative_bias is None else slopes + self.relative_bias

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

    def cost(self, size: Size, tokens: int = 0) -> Cost:
        """Cost for a map of ``size`` and that many global tokens."""
        n, dim, total = math.prod(size), self.dim, math.prod(size) + tokens
        pairs = window_pairs(size, self.window)
        if self.backend == "reference":
            computed = n * math.prod(self.kernel_size)  # it gathers whole windows
        else:
            plain = not tokens and self.softcap is None and self.slopes == 0 and self.relative_bias is None
            without = () if plain else ("bands",)
            computed = path_pairs(choose_path(size, *self.window, without=without), size, self.kernel_size)
        far = n * tokens + tokens * total  # of the positions with tokens, and of tokens with everything
        scores = self.heads * (pairs + far)
        attention = Cost(
            parameters=0 if self.relative_bias is None else self.relative_bias.numel(),
            macs_needed=2 * (pairs + far) * dim,
            macs_computed=2 * (computed + far) * dim,
            macs_dense=2 * (n * n + far) * dim,
            activations=scores + total * dim,
        )
        qkv = linear(dim, 3 * dim, total, bias=self.qkv.bias is not None)
        proj = linear(dim, dim, total, bias=self.proj.bias is not None)
        options = Cost(other_ops=total * dim, activations=total * dim) if self.subtract_input else Cost()
        if self.qk_scale is not None:  # queries and keys normalised, queries scaled
            options += Cost(self.heads, other_ops=(3 + 3 + 1) * total * dim, activations=(1 + 1 + 1) * total * dim)
        if self.softcap is not None:  # divide, tanh, multiply
            options += Cost(other_ops=3 * scores, activations=scores)
        return qkv + attention + softmax(scores, self.heads * total) + proj + options
