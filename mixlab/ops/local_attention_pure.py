"""Local attention in PyTorch operations only, three ways; each is right where it says so, and fastest somewhere.

* ``dense``: all positions against all, masked; everything is supported.
* ``shift``: a loop over the window's places, each a shifted map; everything is supported.
* ``bands``: bands of rows against the rows that they can see; plain windows only, see :func:`unsupported`.

Every row of a mask keeps at least one entry (a query's own position), so no softmax runs over nothing. Results are in
the type of ``q``; half types are computed in float32 on CPUs, which emulate them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mixlab.ops.local_attention_problem import Problem, wide
from mixlab.ops.local_attention_reference import cap
from mixlab.ops.neighbours import (
    Ints,
    Window,
    bias_entries,
    dense_bias_entries,
    dense_mask,
    inside,
    together,
)
from mixlab.ops.size_cache import size_cached
from mixlab.ops.window_products import window_scores, window_sum

BAND_ROWS = 2
Result = tuple[Tensor, Tensor | None]


def dense(p: Problem) -> Result:
    """Attention over all positions with a cached mask; for small grids.

    Fused, except where the fused function does not say what is asked of it: a soft cap, the log-sum-exp, extra keys of
    each query.
    """
    shape, dtype, device = p.q.shape, p.q.dtype, p.q.device
    fused = not p.needs_lse and p.softcap is None and p.shared_extra
    p = p if fused and device.type != "cpu" else p.to(wide(dtype))
    mask = None if p.window.covers(p.size) else dense_mask(p.size, p.window, device=device)  # (N, N)
    q, k, v = (_tokens(t) for t in (p.q, p.k, p.v))
    bias = None
    if p.bias is not None:
        bias = p.bias.to(q.dtype).flatten(1)[:, dense_bias_entries(p.size, p.window, device=device)]  # (heads, N, N)
    if not fused:
        scores = p.scale * q @ k.transpose(2, 3)
        scores = cap(scores if bias is None else scores + bias, p.softcap)
        scores = scores if mask is None else scores.masked_fill(~mask, -math.inf)
        keys, tokens = [scores], scores.shape[3]
        if p.extra_k is not None:
            keys.append(extra_scores(p, p.scale * p.q.flatten(3)).transpose(2, 3))
        scores = torch.cat(keys, dim=3)
        weights = scores.softmax(dim=3)
        out = (weights[..., :tokens] @ v).transpose(2, 3)
        if p.extra_v is not None:
            out = out + extra_sum(p, weights[..., tokens:].transpose(2, 3))
        return out.reshape(shape).to(dtype), scores.logsumexp(dim=3).unflatten(2, shape[3:]) if p.needs_lse else None
    if bias is not None and mask is not None:
        mask = bias.masked_fill(~mask, -math.inf)
    elif bias is not None:
        mask = bias
    if p.extra_k is not None and p.extra_v is not None:
        mask = _with_extra(mask, p, q)
        k, v = torch.cat([k, p.extra_k], dim=2), torch.cat([v, p.extra_v], dim=2)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=p.scale)
    return out.transpose(2, 3).reshape(shape).to(dtype), None


def _tokens(t: Tensor) -> Tensor:
    """(B, heads, N, d), channels innermost: fused attention computes anything else step by step, five times slower."""
    t = t.flatten(3).transpose(2, 3)
    return t if t.stride(3) == 1 else t.contiguous()


def _with_extra(mask: Tensor | None, p: Problem, q: Tensor) -> Tensor | None:
    """The mask or bias ``(..., N, N)`` with columns for extra keys, ``(B or 1, heads or 1, N, N + E)``."""
    assert p.extra_k is not None
    tokens, entries = q.shape[2], p.extra_k.shape[2]
    if mask is None and p.extra_bias is None:
        return None
    if mask is None:
        mask = q.new_zeros(tokens, tokens)
    if mask.dtype == torch.bool:
        mask = q.new_zeros(mask.shape).masked_fill(~mask, -math.inf)
    far = q.new_zeros(1, 1, tokens, entries)
    if p.extra_bias is not None:
        far = p.extra_bias.to(q.dtype).expand(-1, -1, *p.size, entries).flatten(2, -2)  # (., ., N, E)
    mask = mask.expand(1, *((1,) * (3 - mask.ndim)), *mask.shape) if mask.ndim < 4 else mask
    heads, batch = max(mask.shape[1], far.shape[1]), far.shape[0]
    return torch.cat([mask.expand(batch, heads, -1, -1), far.expand(batch, heads, -1, -1)], dim=3)


def shift(p: Problem) -> Result:
    """A loop over the window's places: scores and sums of shifted maps, no gather; any number of axes.

    Its operations do not depend on the size, so that the height and width of a traced graph stay dynamic.
    """
    dtype, size, window = p.q.dtype, p.size, p.window
    p = p.to(wide(dtype))
    q = p.q * p.scale if p.scale != 1.0 else p.q
    scores = window_scores(q, p.k, window)  # (B, heads, K, N)
    outside = outside_image(size, window, dtype=scores.dtype, device=q.device)  # (K, N)
    if p.bias is None:
        scores = cap(scores, p.softcap) + outside
    else:
        bias = p.bias.flatten(1)
        by_place = bias[:, :, None] if window.border == "clip" else bias[:, bias_entries(size, window, device=q.device)]
        scores = scores + (by_place + outside) if p.softcap is None else cap(scores + by_place, p.softcap) + outside
    places = scores.shape[2]
    if p.extra_k is not None:
        scores = torch.cat([scores, extra_scores(p, q.flatten(3))], dim=2)
    weights = scores.softmax(dim=2)
    out = window_sum(weights[:, :, :places], p.v, window)
    if p.extra_v is not None:
        out = out + extra_sum(p, weights[:, :, places:]).unflatten(3, size)
    return out.to(dtype), scores.logsumexp(dim=2).unflatten(2, size) if p.needs_lse else None


def extra_scores(p: Problem, q: Tensor) -> Tensor:
    """Capped scores of the extra keys ``(B, heads, E, N)`` for scaled queries ``(B, heads, d, N)``."""
    assert p.extra_k is not None
    if p.shared_extra:
        scores = p.extra_k @ q
    else:
        keys = p.extra_k.flatten(2, -3)  # (B, heads, N, E, d)
        scores = (keys @ q.transpose(2, 3).unsqueeze(4)).squeeze(4).transpose(2, 3)
    if p.extra_bias is not None:
        bias = p.extra_bias.expand(-1, -1, *p.size, scores.shape[2])
        scores = scores + bias.movedim(-1, 2).flatten(3)
    return cap(scores, p.softcap)


def extra_sum(p: Problem, weights: Tensor) -> Tensor:
    """Values of the extra keys with weights ``(B, heads, E, N)``, summed: ``(B, heads, d, N)``."""
    assert p.extra_v is not None
    if p.shared_extra:
        return p.extra_v.transpose(2, 3) @ weights
    values = p.extra_v.flatten(2, -3)  # (B, heads, N, E, d)
    return (weights.transpose(2, 3).unsqueeze(3) @ values).squeeze(3).transpose(2, 3)


def bands(p: Problem) -> Result:
    """Bands of rows (slabs of the first axis) against the rows that they can see, in fused attention."""
    assert unsupported("bands", p) is None, "bands are chosen for plain windows only"
    dtype, kernel = p.q.dtype, p.window.kernel
    if p.q.device.type == "cpu":
        p = p.to(wide(dtype))
    batch, heads, d, height, *rest = p.q.shape
    rows, count = band_layout(height)
    halo, missing = kernel[0] // 2, rows * count - height
    row_pad = [0, 0] * len(rest)

    def split(t: Tensor, before: int, after: int, length: int) -> Tensor:
        """(B, heads, d, H, *rest) -> (B * heads, bands, length * prod(rest), d)."""
        padded = F.pad(t, [*row_pad, before, after + missing])
        banded = padded.unfold(3, length, rows)  # (B, heads, d, bands, *rest, length)
        banded = banded.movedim(-1, 4).flatten(4)  # (B, heads, d, bands, length * prod(rest))
        return banded.flatten(0, 1).permute(0, 2, 3, 1)

    mask = band_mask((height, *rest), kernel, device=p.q.device)  # (bands, queries, keys)
    out = F.scaled_dot_product_attention(
        split(p.q, 0, 0, rows), split(p.k, halo, halo, rows + 2 * halo), split(p.v, halo, halo, rows + 2 * halo),
        attn_mask=mask, scale=p.scale,
    )  # fmt: skip  # (B * heads, bands, rows * prod(rest), d)
    out = out.permute(0, 3, 1, 2).reshape(batch, heads, d, rows * count, *rest)
    return out[:, :, :, :height].to(dtype), None


PATHS: dict[str, Callable[[Problem], Result]] = {"dense": dense, "shift": shift, "bands": bands}


def unsupported(path: str, p: Problem) -> str | None:
    """Why a path cannot compute this, or None."""
    if path != "bands":
        return None
    given = {
        "a shifted border": p.window.border != "clip",
        "one axis": len(p.size) == 1,
        "dilation": max(p.window.dilation) > 1,
        "a bias": p.bias is not None,
        "a soft cap": p.softcap is not None,
        "extra keys": p.extra_k is not None,
        "the log-sum-exp": p.needs_lse,
    }
    missing = [name for name, there in given.items() if there]
    return f"bands do not support {', '.join(missing)}" if missing else None


def aggregate(weights: Tensor, v: Tensor, window: Window) -> Tensor:
    """``y_i = sum_j weights_ij v_j`` as a loop over places; weights ``(B, heads, *spatial, K)``."""
    size, dtype = tuple(v.shape[3:]), v.dtype
    planes = weights.movedim(-1, 2).flatten(3).to(wide(dtype))  # (B, heads, K, N)
    if window.border == "shift" and not window.keeps_all(size):  # clipped ones meet zeros
        planes = planes.masked_fill(~inside(size, window, device=v.device), 0)
    return window_sum(planes, v.to(planes.dtype), window).to(dtype)


def band_layout(height: int) -> tuple[int, int]:
    """(rows a band, bands) for a grid of that many rows."""
    rows = min(BAND_ROWS, height)
    return rows, -(-height // rows)


@size_cached()
def outside_image(size: Ints, window: Window, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(K, N): 0 for a neighbour that exists, -inf for one that does not."""
    exists = inside(size, window, device=device)
    return torch.zeros(exists.shape, dtype=dtype, device=device).masked_fill(~exists, -math.inf)


@size_cached()
def band_mask(size: Ints, kernel: Ints, *, device: torch.device) -> Tensor:
    """(bands, queries, keys) bool for :func:`bands`; a padded query row sees everything (its output is cut off)."""
    height, *rest = size
    rows, count = band_layout(height)
    halo = kernel[0] // 2
    first = torch.arange(count, device=device)[:, None] * rows
    query = first + torch.arange(rows, device=device)  # (bands, rows)
    key = first - halo + torch.arange(rows + 2 * halo, device=device)  # (bands, rows + 2 halo)
    near = (query[:, :, None] - key[:, None, :]).abs() <= halo
    row_mask = near & ((key >= 0) & (key < height))[:, None, :] | (query >= height)[:, :, None]
    far = [torch.arange(n, device=device) for n in rest]
    far = [((at[:, None] - at).abs() > k // 2).long() for at, k in zip(far, kernel[1:], strict=True)]
    return torch.stack([together([band, *far], [1] * len(size)) == 0 for band in (~row_mask).long()])
