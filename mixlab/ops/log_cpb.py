"""Log-spaced relative coordinates between positions and (pooled) keys, each difference once.

A bias that is a function of the coordinate difference between a query and a key is the same for all pairs with the same
difference. Differences of a grid are products of differences along its axes, so the function runs once on each of
those few (a *table*) and pairs look their entry up.

Axis ``n`` with ``p`` keys: key ``i`` is the mean of the adaptive pooling bin ``floor(i n / p) .. ceil((i + 1) n / p)``,
a multiple of one half. Where ``p`` divides ``n`` there are ``2 n - n / p`` differences. ``pooled`` is None where every
position is a key.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from mixlab.ops.pooled_grid import bin_edges
from mixlab.ops.size_cache import size_cached

Ints = tuple[int, ...]


@functools.lru_cache(maxsize=256)
def differences(n: int, p: int) -> Ints:
    """The distinct values of ``2 (a_query - a_key)``, in order."""
    keys = {i * n // p - (-(i + 1) * n // p) - 1 for i in range(p)}  # twice the mean of each bin
    return tuple(sorted({2 * a - k for a in range(n) for k in keys}))


def table_entries(size: Ints, pooled: Ints | None) -> int:
    """Entries of the table: the product over axes of their distinct differences."""
    if pooled is None:
        return math.prod(2 * n - 1 for n in size)
    return math.prod(len(differences(n, p)) for n, p in zip(size, pooled, strict=True))


def _axis(n: int, p: int | None, device: torch.device) -> Tensor:
    """Doubled differences that the table has along an axis.

    While tracing, sizes may be symbolic: all multiples of one half, of which some go unused.
    """
    if p is None:
        return 2 * torch.arange(1 - n, n, device=device)
    if torch.compiler.is_compiling():
        return torch.arange(2 - 2 * n, 2 * n - 1, device=device)
    return torch.tensor(differences(n, p), device=device)


def _doubled(n: int, p: int | None, device: torch.device) -> Tensor:
    """(keys, n) whole numbers ``2 (a_query - a_key)``."""
    twice = 2 * torch.arange(n, device=device)
    if p is None:
        return twice - twice[:, None]
    first, end = bin_edges(n, p, device)
    return twice - (first + end - 1)[:, None]


@size_cached()
def log_coordinates(
    size: Ints, pooled: Ints | None, pretrained: Ints, *, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """(T, axes): for each entry of the table ``sign(d) log2(|d| + 1) / 3`` per axis.

    ``d = 8 (a_query - a_key) / (S - 1)`` for a grid of ``S`` positions in pretraining: 8 at its far end.
    """
    precise = torch.promote_types(dtype, torch.float32)
    axes = []
    for n, p, s in zip(size, pooled or (None,) * len(size), pretrained, strict=True):
        extent: int = torch.sym_max(s - 1, 1)  # type: ignore[assignment]  # one token has no extent
        d = _axis(n, p, device).to(precise) * 4 / extent
        axes.append(d.sign() * (d.abs() + 1).log2() / 3)
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2).to(dtype)


def _entries(doubled: Tensor, axis: Tensor, n: int, p: int | None) -> Tensor:
    """Where each difference stands in an axis of the table."""
    if p is None:
        return torch.div(doubled, 2, rounding_mode="floor") + (n - 1)
    if torch.compiler.is_compiling():  # every multiple of one half is there; other runtimes have no search
        return doubled + (2 * n - 2)
    return torch.searchsorted(axis, doubled)


@size_cached()
def table_index(size: Ints, pooled: Ints | None, *, device: torch.device) -> Tensor:
    """(P, N) entry of the table for each key and query, both in raster order."""
    index = torch.zeros((1, 1), dtype=torch.int64, device=device)
    for n, p in zip(size, pooled or (None,) * len(size), strict=True):
        axis = _axis(n, p, device)
        entry = _entries(_doubled(n, p, device), axis, n, p)  # (keys, n)
        index = (index[:, None, :, None] * axis.shape[0] + entry[None, :, None, :]).flatten(0, 1).flatten(1, 2)
    return index
