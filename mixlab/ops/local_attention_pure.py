"""Local attention in PyTorch operations only, three ways; each is right everywhere and fastest somewhere.

Shapes: q, k, v and the result are ``(B, heads, d, *spatial)``; ``kernel`` and ``dilation`` hold one int an axis.
Every row of a mask keeps at least one entry (a query's own position), so no softmax runs over nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mixlab.ops.size_cache import size_cached
from mixlab.ops.windows import offsets

BAND_ROWS = 2
Ints = tuple[int, ...]


def dense(q: Tensor, k: Tensor, v: Tensor, kernel: Ints, dilation: Ints, scale: float) -> Tensor:
    """Fused attention over all positions with a cached mask; for small grids."""
    shape = q.shape
    mask = window_mask(tuple(shape[3:]), kernel, dilation, device=q.device)  # (N, N)
    q, k, v = (t.flatten(3).transpose(2, 3) for t in (q, k, v))  # (B, heads, N, d)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return out.transpose(2, 3).reshape(shape)


def shift(q: Tensor, k: Tensor, v: Tensor, kernel: Ints, dilation: Ints, scale: float) -> Tensor:
    """A loop over the window's offsets: scores and sums of shifted maps, no gather; any number of axes."""
    size = q.shape[3:]
    halo = [w // 2 * step for w, step in zip(kernel, dilation, strict=True)]
    padding = [h for h in reversed(halo) for _ in (0, 1)]  # F.pad wants the last axis first
    k, v = F.pad(k.contiguous(), padding), F.pad(v.contiguous(), padding)  # the loop reads rows of pixels
    q = q.contiguous() * scale

    def shifted(t: Tensor, offset: Ints) -> Tensor:
        for axis, (h, o, n) in enumerate(zip(halo, offset, size, strict=True), start=3):
            t = t.narrow(axis, h + o, n)
        return t

    window = offsets(kernel, dilation)
    scores = torch.stack([(q * shifted(k, o)).sum(dim=2) for o in window])  # (K, B, heads, *spatial)
    inside = inside_image(tuple(size), kernel, dilation, device=q.device)  # (K, *spatial)
    weights = scores.masked_fill(~inside[:, None, None], -math.inf).softmax(dim=0)
    out = weights[0].unsqueeze(2) * shifted(v, window[0])
    for weight, o in zip(weights[1:], window[1:], strict=True):
        out = torch.addcmul(out, weight.unsqueeze(2), shifted(v, o))
    return out


def bands(q: Tensor, k: Tensor, v: Tensor, kernel: Ints, dilation: Ints, scale: float) -> Tensor:
    """Bands of rows (slabs of the first axis) against the rows that they can see, in fused attention; no dilation."""
    assert max(dilation) == 1, "bands are chosen without dilation only"
    batch, heads, d, height, *rest = q.shape
    rows, count = band_layout(height)
    halo, missing = kernel[0] // 2, rows * count - height
    row_pad = [0, 0] * len(rest)

    def split(t: Tensor, before: int, after: int, length: int) -> Tensor:
        """(B, heads, d, H, *rest) -> (B * heads, bands, length * prod(rest), d)."""
        padded = F.pad(t, [*row_pad, before, after + missing])
        banded = padded.unfold(3, length, rows)  # (B, heads, d, bands, *rest, length)
        banded = banded.movedim(-1, 4).flatten(4)  # (B, heads, d, bands, length * prod(rest))
        return banded.flatten(0, 1).permute(0, 2, 3, 1)

    mask = band_mask((height, *rest), kernel, device=q.device)  # (bands, queries, keys)
    out = F.scaled_dot_product_attention(
        split(q, 0, 0, rows), split(k, halo, halo, rows + 2 * halo), split(v, halo, halo, rows + 2 * halo),
        attn_mask=mask, scale=scale,
    )  # fmt: skip  # (B * heads, bands, rows * prod(rest), d)
    out = out.permute(0, 3, 1, 2).reshape(batch, heads, d, rows * count, *rest)
    return out[:, :, :, :height]


PATHS: dict[str, Callable[[Tensor, Tensor, Tensor, Ints, Ints, float], Tensor]] = {
    "dense": dense, "shift": shift, "bands": bands,
}  # fmt: skip


def band_layout(height: int) -> tuple[int, int]:
    """(rows a band, bands) for a grid of that many rows."""
    rows = min(BAND_ROWS, height)
    return rows, -(-height // rows)


def _neighbours(query: Tensor, key: Tensor, width: int, step: int) -> Tensor:
    """(Q, K) bool: which positions of one axis see each other."""
    distance = query[:, None] - key[None, :]
    return (distance.abs() <= width // 2 * step) & (distance % step == 0)


def _grid_mask(axes: list[Tensor]) -> Tensor:
    """Combine per-axis masks (Q_a, K_a) to (prod Q, prod K), row-major."""
    mask = axes[0]
    for axis in axes[1:]:
        mask = (mask[:, None, :, None] & axis[None, :, None, :]).flatten(0, 1).flatten(1, 2)
    return mask


@size_cached()
def window_mask(size: Ints, kernel: Ints, dilation: Ints, *, device: torch.device) -> Tensor:
    """(N, N) bool: key j is in the window of query i."""
    ranges = [torch.arange(n, device=device) for n in size]
    return _grid_mask([_neighbours(r, r, w, s) for r, w, s in zip(ranges, kernel, dilation, strict=True)])


@size_cached()
def inside_image(size: Ints, kernel: Ints, dilation: Ints, *, device: torch.device) -> Tensor:
    """(K, *spatial) bool: the neighbour at each offset of the window lies inside the image."""
    ranges = [torch.arange(n, device=device) for n in size]

    def one(offset: Ints) -> Tensor:
        axes = [(r + o >= 0) & (r + o < n) for r, o, n in zip(ranges, offset, size, strict=True)]
        inside = axes[0]
        for axis in axes[1:]:
            inside = inside[..., None] & axis
        return inside

    return torch.stack([one(o) for o in offsets(kernel, dilation)])


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
    ranges = [torch.arange(n, device=device) for n in rest]
    inner = [_neighbours(r, r, w, 1) for r, w in zip(ranges, kernel[1:], strict=True)]
    return torch.stack([_grid_mask([band, *inner]) for band in row_mask])
