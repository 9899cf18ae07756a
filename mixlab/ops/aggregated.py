"""A local window and pooled keys in one softmax, free of parameters.

Shapes: queries, keys, values and the result are ``(B, heads, d, *spatial)``, pooled ones ``(B, heads, d, P)``. The
window has ``K`` offsets, row-major; ``N`` positions in raster order.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mixlab.errors import expected
from mixlab.ops.local_attention_pure import inside_image
from mixlab.ops.size_cache import size_cached
from mixlab.ops.windows import offsets

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
    scores, apply = (_gathered_scores, _gathered_sum) if backend == "reference" else (_shifted_scores, _shifted_sum)
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


def _padded(t: Tensor, kernel: Ints) -> Tensor:
    return F.pad(t.contiguous(), [w // 2 for w in reversed(kernel) for _ in (0, 1)])


def _shifted(padded: Tensor, offset: Ints, kernel: Ints, size: Ints) -> Tensor:
    """The view of a padded map whose position holds what lies at ``offset`` from it."""
    for axis, (o, w, n) in enumerate(zip(offset, kernel, size, strict=True), start=3):
        padded = padded.narrow(axis, w // 2 + o, n)
    return padded


def _shifted_scores(q: Tensor, k: Tensor, kernel: Ints) -> Tensor:
    size, k, q = tuple(q.shape[3:]), _padded(k, kernel), q.contiguous()
    window = offsets(kernel, (1,) * len(kernel))
    return torch.stack([(q * _shifted(k, o, kernel, size)).sum(dim=2) for o in window], dim=2).flatten(3)


def _shifted_sum(weights: Tensor, v: Tensor, kernel: Ints) -> Tensor:
    size, v = tuple(v.shape[3:]), _padded(v, kernel)
    first, *others = offsets(kernel, (1,) * len(kernel))
    each = weights.unflatten(3, size).unsqueeze(2).unbind(3)  # K maps (B, heads, 1, *spatial)
    out = each[0] * _shifted(v, first, kernel, size)
    for weight, o in zip(each[1:], others, strict=True):
        out = torch.addcmul(out, weight, _shifted(v, o, kernel, size))
    return out


def _windows(t: Tensor, kernel: Ints) -> Tensor:
    """(B, heads, N, K, d): every position's window, zeros outside the image."""
    t = _padded(t, kernel)
    for axis, w in enumerate(kernel, start=3):
        t = t.unfold(axis, w, 1)  # the window's axes come last
    axes = len(kernel)
    return t.flatten(3 + axes).flatten(3, 2 + axes).permute(0, 1, 3, 4, 2)


def _gathered_scores(q: Tensor, k: Tensor, kernel: Ints) -> Tensor:
    rows = q.flatten(3).transpose(2, 3).unsqueeze(4)  # (B, heads, N, d, 1)
    return (_windows(k, kernel) @ rows).squeeze(4).transpose(2, 3)


def _gathered_sum(weights: Tensor, v: Tensor, kernel: Ints) -> Tensor:
    rows = weights.transpose(2, 3).unsqueeze(3)  # (B, heads, N, 1, K)
    return (rows @ _windows(v, kernel)).squeeze(3).transpose(2, 3).unflatten(3, v.shape[3:])
