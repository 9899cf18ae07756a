from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mixlab.cost import Cost, Size, convolution, linear, softmax
from mixlab.errors import expected
from mixlab.mixers.attention import heads_for
from mixlab.mixers.base import Includes, Mixer, register_mixer
from mixlab.ops import Pointwise
from mixlab.ops.convs import CONVS
from mixlab.ops.size_cache import size_cached
from mixlab.ops.windows import PerAxis, odd_kernel

HALVES = (torch.float16, torch.bfloat16)


@register_mixer("manhattan_attention")
class ManhattanAttention(Mixer):
    """Multi-head self-attention whose scores decay with the Manhattan distance of two positions.

    ``y = W_o (concat_h softmax(q_h k_h^T / sqrt(d) + g_h · distance) v_h + lepe(v))``. Queries and keys are rotated by
    their raster index (rotary position encoding); ``lepe`` is a depthwise convolution of the values. Head ``h`` of
    ``n`` decays by ``g_h = ln(1 - 2^-(a + R h / n)) < 0`` a step: early heads look near, late heads far.

    Decomposed, each row attends to itself and then, with the same queries and keys, each column to itself: the cost
    grows with ``N (H + W)`` instead of ``N²``.

    The paper has 2D. In 1D the distance is that along the axis, and both forms are the same; in 3D it is the sum over
    three axes, and the decomposed form goes along W, then H, then D.

    Args:
        dim: channels; heads are ``dim / head_dim``.
        spatial_dims: 1, 2 or 3.
        head_dim: channels of a head, even (they turn in pairs), a divisor of ``dim``.
        decomposed: attend along one axis after the other.
        decay_start: ``a`` above.
        decay_range: ``R`` above.
        lepe_kernel: odd kernel of the convolution on the values, an int or one per axis.
        qkv_bias: bias on queries, keys and values.

    Raises:
        UserError: ``head_dim`` is odd or does not divide ``dim``, ``lepe_kernel`` is even, or a head would not decay.

    Cost: ``4 N dim² + prod(lepe_kernel) N dim + 2 N M dim`` MACs and ``heads`` softmaxes over ``N x M`` scores, ``M``
    being ``N``, or the sum of the axes' sizes when decomposed (then one softmax an axis); 3 other operations an element
    of queries and keys to rotate them. Adding the decay counts nothing, as a bias. ``dense`` has the whole form's.

    Source: RMT, Fan et al. (arXiv:2309.11523), section 3; the values of a column are the results of its rows.
    """

    includes = Includes(projections=True, mixes_channels=True, learned=True, position="bias", reach="global")

    def __init__(
        self,
        dim: int,
        *,
        spatial_dims: int = 2,
        head_dim: int = 16,
        decomposed: bool = True,
        decay_start: float = 2.0,
        decay_range: float = 4.0,
        lepe_kernel: PerAxis = 5,
        qkv_bias: bool = True,
    ) -> None:
        super().__init__(dim, spatial_dims=spatial_dims)
        self.head_dim = head_dim
        self.heads = heads_for(dim, head_dim, "manhattan_attention")
        if head_dim % 2:
            hint = f"head_dim={2 * head_dim}" if dim % (2 * head_dim) == 0 else "an even width"
            raise expected("manhattan_attention head_dim", "an even number (channels turn in pairs)", head_dim, hint)
        if min(decay_start, decay_start + decay_range * (self.heads - 1) / self.heads) <= 0:
            got = (decay_start, decay_range)
            raise expected("manhattan_attention decay_start, decay_range", "a positive sum in every head", got, "2, 4")
        self.decomposed = decomposed
        self.decay_start, self.decay_range = float(decay_start), float(decay_range)
        self.lepe_kernel = odd_kernel(lepe_kernel, spatial_dims, "manhattan_attention lepe")
        self.q_proj = Pointwise(dim, dim, bias=qkv_bias)
        self.k_proj = Pointwise(dim, dim, bias=qkv_bias)
        self.v_proj = Pointwise(dim, dim, bias=qkv_bias)
        padding = tuple(k // 2 for k in self.lepe_kernel)
        self.lepe = CONVS[spatial_dims](dim, dim, self.lepe_kernel, padding=padding, groups=dim)
        self.out_proj = Pointwise(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim, *spatial)`` to the same shape."""
        self.check(x)
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        turns = rotary_turns(math.prod(x.shape[2:]), self.head_dim, self.heads, dtype=q.dtype, device=q.device)
        q, k = rotated(_tokens(q), turns), rotated(_tokens(k), turns)
        attend = self._along_axes if self.decomposed else self._whole
        return self.out_proj(self.lepe(v) + attend(q, k, v))

    def _whole(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Every position with every other one; tokens ``(B, N, C)`` twice and a map ``(B, C, *spatial)`` to a map."""
        size = tuple(v.shape[2:])
        return self._attend(q, k, _tokens(v), size).transpose(1, 2).unflatten(2, size)

    def _along_axes(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Along the last axis, then along the one before on what comes out, and so on; shapes as of the whole form."""
        last, size = self.spatial_dims, v.shape[2:]
        q, k, v = q.unflatten(1, size), k.unflatten(1, size), v.movedim(1, -1)  # (B, *spatial, C)
        for axis in range(last, 0, -1):
            n, shape = size[axis - 1], v.transpose(axis, last).shape
            lines = [t.transpose(axis, last).reshape(-1, n, self.dim) for t in (q, k, v)]
            v = self._attend(lines[0], lines[1], lines[2], (n,)).view(shape).transpose(axis, last)
        return v.movedim(-1, 1)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, size: Size) -> Tensor:
        """Within each of ``B`` sequences of tokens ``(B, N, C)`` that lie on a grid of ``size``; same shape."""
        rates = (self.heads, self.decay_start, self.decay_range)
        mask = decay_mask(size, *rates, dtype=q.dtype, device=q.device)
        q, k, v = (t.unflatten(2, (self.heads, self.head_dim)).transpose(1, 2) for t in (q, k, v))  # (B, heads, N, d)
        return F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)

    def cost(self, size: Size) -> Cost:
        n, dim = math.prod(size), self.dim
        qkv = linear(dim, dim, n, bias=self.q_proj.bias is not None)
        rotation = Cost(other_ops=6 * n * dim, activations=2 * n * dim)
        attention = Cost()
        for keys in size if self.decomposed else (n,):
            pairs = 2 * n * keys * dim
            attention += Cost(0, pairs, pairs, 0, 0, self.heads * n * keys + n * dim)
            attention += softmax(self.heads * n * keys, self.heads * n)
        dense = Cost(macs_dense=2 * n * n * dim)
        lepe = convolution(dim, dim, self.lepe_kernel, size, groups=dim)
        return qkv + qkv + qkv + rotation + attention + dense + lepe + linear(dim, dim, n)

    def extra_repr(self) -> str:
        return (
            f"head_dim={self.head_dim}, decomposed={self.decomposed}, decay_start={self.decay_start}, "
            f"decay_range={self.decay_range}"
        )


def _tokens(x: Tensor) -> Tensor:
    """``(B, C, *spatial)`` to ``(B, N, C)``; a view for what a pointwise layer returns."""
    return x.flatten(2).transpose(1, 2)


def rotary_angles(head_dim: int) -> Tensor:
    """``(d,)`` float32: how far each channel of a head turns from one position to the next, in pairs.

    Made on the CPU, as published models store them: one unit in the last place, at position 3135, is 2e-4 of a turn.
    """
    exponents = torch.linspace(0, 1, head_dim // 2, dtype=torch.float32, device="cpu")
    return (1.0 / 10000**exponents).repeat_interleave(2)


def decay_rates(heads: int, start: float, width: float) -> Tensor:
    """``(heads,)`` float32: what one step of distance adds to the scores of each head, ``g_h`` (negative)."""
    share = torch.arange(heads, dtype=torch.float32, device="cpu")
    return torch.log(1 - 2 ** (-start - width * share / heads))


@size_cached(max_entries=8)
def rotary_turns(tokens: int, head_dim: int, heads: int, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``(N, C / 2, 2)``: cosine and sine by which each pair of channels turns at each position, for all heads.

    The angles are rounded to float32, as published models store them; the rest is in the precision of the input.
    """
    exact = torch.float32 if dtype in HALVES else dtype
    angles = rotary_angles(head_dim)[::2].to(device, exact).repeat(heads)
    turns = torch.arange(tokens, device=device, dtype=exact)[:, None] * angles
    return torch.stack((turns.cos(), turns.sin()), dim=2).to(dtype)


def rotated(x: Tensor, turns: Tensor) -> Tensor:
    """Tokens ``(B, N, C)``, each pair of channels turned as :func:`rotary_turns` says."""
    pairs = x.unflatten(2, (-1, 2))  # (B, N, C / 2, 2)
    if x.dtype not in HALVES and not torch.compiler.is_compiling():  # one pass over memory instead of six
        return torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(turns)).flatten(2)
    (a, b), (cos, sin) = pairs.unbind(3), turns.unbind(2)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=3).flatten(2)


@size_cached(max_entries=8)
def decay_mask(
    size: Size,
    heads: int,
    start: float,
    width: float,
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """``(1, heads, N, N)``: what is added to the scores, ``g_h`` times the Manhattan distance."""
    exact = torch.float32 if dtype in HALVES else dtype
    distance = torch.zeros((1, 1), dtype=exact, device=device)
    for n in size:
        at = torch.arange(n, device=device, dtype=exact)
        axis = (at[:, None] - at).abs()
        distance = (distance[:, None, :, None] + axis[:, None]).flatten(0, 1).flatten(1)  # (Q n, K n), row-major
    mask = decay_rates(heads, start, width).to(device, exact)[:, None, None] * distance
    return mask.to(dtype)[None]  # four axes, or a CPU's fast path refuses it
