"""A local window and pooled keys in one softmax, and weights added after it: two calls of local attention.

Shapes: queries, keys, values and the result are ``(B, heads, d, *spatial)``, pooled ones ``(B, heads, d, P)``. The
window has ``K`` offsets, row-major; ``N`` positions in raster order. With ``p`` the softmax over both together::

    p_i = softmax([q_i · k_j + local_bias_j, q_i · pooled_k_e + pooled_bias_ei])
    out_i = sum_j (p_ij + extra_ij) v_j + sum_e p_ie pooled_v_e
"""

from __future__ import annotations

import torch
from torch import Tensor

from mixlab.errors import expected
from mixlab.ops.local_attention import AGGREGATE_BACKENDS, local_aggregate, local_attention
from mixlab.ops.size_cache import size_cached

Ints = tuple[int, ...]


def check_backend(backend: str, where: str) -> str:
    """A backend of both calls, else a UserError."""
    if backend not in AGGREGATE_BACKENDS:
        raise expected(f"{where} backend", f"one of {', '.join(AGGREGATE_BACKENDS)}", backend)
    return backend


def aggregated_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pooled_k: Tensor,
    pooled_v: Tensor,
    kernel: Ints,
    *,
    local_bias: Tensor,
    pooled_bias: Tensor,
    extra: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """See above.

    Args:
        q: queries, with every scale in them.
        k, v: keys and values of the positions.
        pooled_k, pooled_v: keys and values that every query sees.
        kernel: odd window per axis; neighbours outside the image take no part.
        local_bias: (heads, K), added to the scores of the window.
        pooled_bias: (heads, P, N), added to the others.
        extra: (B, heads, K, N), added to the window's weights after the softmax.
        backend: of :func:`mixlab.ops.local_attention` and :func:`mixlab.ops.local_aggregate`.
    """
    size = tuple(q.shape[3:])
    mixed = local_attention(
        q, k, v, kernel, bias=local_bias.unflatten(1, kernel), scale=1.0,
        extra_kv=(pooled_k.transpose(2, 3), pooled_v.transpose(2, 3)),
        extra_bias=pooled_bias.unflatten(2, size).movedim(1, -1), backend=backend,
    )  # fmt: skip
    if extra is None:
        return mixed
    return mixed + local_aggregate(extra.unflatten(3, size).movedim(2, -1), v, kernel, backend=backend)


@size_cached()
def log_keys(size: Ints, kernel: Ints, pooled: int, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(\\*spatial): natural logarithm of the number of keys of each position, in the window and pooled."""
    counts = torch.ones((), device=device)
    for n, w in zip(size, kernel, strict=True):
        at = torch.arange(n, device=device)
        axis = (at + w // 2).clamp(max=n - 1) - (at - w // 2).clamp(min=0) + 1
        counts = counts[..., None] * axis
    return (counts.to(torch.promote_types(dtype, torch.float32)) + pooled).log().to(dtype)
