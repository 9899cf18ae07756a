"""A local window and pooled keys in one softmax, free of parameters.

Shapes: queries, keys, values and the result are ``(B, heads, d, *spatial)``, pooled ones ``(B, heads, d, P)``. The
window has ``K`` offsets, row-major; ``N`` positions in raster order.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mixlab.errors import expected
from mixlab.ops.local_attention_pure import inside_image
from mixlab.ops.size_cache import size_cached
from mixlab.ops.window_products import gathered_scores, gathered_sum, window_scores, window_sum

BACKENDS = ("auto", "reference")
Ints = tuple[int, ...]


def check_backend(backend: str, where: str) -> str:
    """``auto`` or ``reference``, else a UserError."""
    if backend not in BACKENDS:
        raise expected(f"{where} backend", f"one of {', '.join(BACKENDS)}", backend)
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
    """``softmax([q k_window + local_bias, q pooled_k + pooled_bias])`` over both together, applied to their values.

    Args:
        q: queries, with every scale in them.
        k, v: keys and values of the positions.
        pooled_k, pooled_v: keys and values that every query sees.
        kernel: odd window per axis; neighbours outside the image take no part.
        local_bias: (heads, K), added to the scores of the window.
        pooled_bias: (heads, P, N), added to the others.
        extra: (B, heads, K, N), added to the window's weights after the softmax.
        backend: ``reference`` gathers all windows; ``auto`` loops over the window's offsets instead, with less memory.
    """
    size = tuple(q.shape[3:])
    scores, apply = (gathered_scores, gathered_sum) if backend == "reference" else (window_scores, window_sum)
    window = math.prod(kernel)
    outside = outside_image(size, kernel, dtype=q.dtype, device=q.device)  # (K, N)
    local = scores(q, k, kernel) + (local_bias[:, :, None] + outside)  # (B, heads, K, N)
    pooled = pooled_k.transpose(2, 3) @ q.flatten(3) + pooled_bias  # (B, heads, P, N)
    weights = torch.cat([local, pooled], dim=2).softmax(dim=2)
    near, far = weights[:, :, :window], weights[:, :, window:]
    if extra is not None:
        near = near + extra
    return apply(near, v, kernel) + (pooled_v @ far).unflatten(3, size)


@size_cached()
def outside_image(size: Ints, kernel: Ints, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(K, N): 0 for a neighbour inside the image, -inf for one outside."""
    inside = inside_image(size, kernel, (1,) * len(size), device=device).flatten(1)
    return torch.zeros(inside.shape, dtype=dtype, device=device).masked_fill(~inside, -math.inf)


@size_cached()
def log_keys(size: Ints, kernel: Ints, pooled: int, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(\\*spatial): natural logarithm of the number of keys of each position, in the window and pooled."""
    counts = torch.ones((), device=device)
    for n, w in zip(size, kernel, strict=True):
        at = torch.arange(n, device=device)
        axis = (at + w // 2).clamp(max=n - 1) - (at - w // 2).clamp(min=0) + 1
        counts = counts[..., None] * axis
    return (counts.to(torch.promote_types(dtype, torch.float32)) + pooled).log().to(dtype)
