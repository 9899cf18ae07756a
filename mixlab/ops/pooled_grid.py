"""Adaptive average pooling to a grid that may be computed from a symbolic size.

A graph that ``torch.export`` makes for all sizes holds no axis that may have one entry, as it treats 1 as a case of its
own. A pooled axis may. While exporting every pooled axis therefore has a *spare* bin at its end, which averages nothing
and whose key is masked (:func:`spare_mask`).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Ints = tuple[int, ...]
_POOL: dict[int, Any] = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


def pooled_size(size: Ints, ratio: Ints, fixed: Ints | None) -> Ints:
    """``fixed``, or the size divided by ``ratio``, at least 1 per axis."""
    if fixed is not None:
        return fixed
    return tuple(torch.sym_max(n // r, 1) for n, r in zip(size, ratio, strict=True))  # type: ignore[misc]


def spare() -> int:
    """Bins at the end of each axis that stand for nothing."""
    return int(torch.compiler.is_exporting())


def bin_edges(n: int, p: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """First position and end ``floor(i n / p), ceil((i + 1) n / p)`` of each bin of an axis; a spare one is empty."""
    i = torch.arange(p + spare(), device=device)
    first = torch.div(i * n, p, rounding_mode="floor")
    end = torch.div((i + 1) * n + p - 1, p, rounding_mode="floor")
    return first, end.clamp(max=n)


def spare_mask(pooled: Ints, like: Tensor) -> Tensor:
    """(P, 1): 0 for a key, -inf for a spare one, in raster order."""
    mask = torch.zeros((), dtype=like.dtype, device=like.device)
    for p in pooled:
        i = torch.arange(p + spare(), device=like.device)
        mask = mask[..., None] + torch.zeros_like(i, dtype=like.dtype).masked_fill(i >= p, -math.inf)
    return mask.flatten()[:, None]


def bin_entries(size: Ints, pooled: Ints) -> int:
    """Entries that all bins average, one channel."""
    entries = 1
    for n, p in zip(size, pooled, strict=True):
        entries *= sum(-(-(i + 1) * n // p) - i * n // p for i in range(p))
    return entries


def pool_to(x: Tensor, pooled: Ints) -> Tensor:
    """Mean of every bin: ``(B, C, *spatial)`` to ``(B, C, *pooled)``; zeros in spare bins."""
    if not torch.compiler.is_compiling():
        return _POOL[len(pooled)](x, pooled)
    # A graph keeps its height and width dynamic only with a pooling whose bins are numbers in it.
    for axis, p in enumerate(pooled, start=2):
        x = (x.movedim(axis, -1) @ averaging(x.shape[axis], p, x).t()).movedim(-1, axis)
    return x


def averaging(n: int, p: int, like: Tensor) -> Tensor:
    """(p, n): row ``i`` has the weights of bin ``i`` over the positions of an axis."""
    first, end = (edge[:, None] for edge in bin_edges(n, p, like.device))
    at = torch.arange(n, device=like.device)
    inside = (at >= first) & (at < end)
    return inside.to(like.dtype) / (end - first).clamp(min=1).to(like.dtype)
