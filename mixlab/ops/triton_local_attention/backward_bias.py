"""The backward kernel of the window's bias: each tile of queries writes its sums, which are then added in order."""

from __future__ import annotations

import triton
import triton.language as tl

from mixlab.ops.triton_local_attention.geometry import (
    find_tile,
    keys,
    load_map,
    map_start,
    raster,
    sees,
    tile_positions,
    windows,
)
from mixlab.ops.triton_local_attention.scores import exp, gradient, own_scores


@triton.jit
def backward_bias(
    q: tl.tensor, k: tl.tensor, v: tl.tensor, bias: tl.tensor, lse: tl.tensor, dout: tl.tensor, delta: tl.tensor,
    parts: tl.tensor, q_strides: tl.tuple, k_strides: tl.tuple, v_strides: tl.tuple, dout_strides: tl.tuple,
    size: tl.tuple, heads: tl.tensor, d: tl.tensor, scale: tl.tensor, softcap: tl.tensor, KERNEL: tl.constexpr,
    STEP: tl.constexpr, SHIFT: tl.constexpr, TILE: tl.constexpr, BLOCK_D: tl.constexpr,
) -> None:  # fmt: skip
    """Writes ``parts (B, heads, tiles, entries)``: the gradients of the scores, summed over one tile of queries.

    A loop over the bias's entries, each with one key a query: diagonals of a product of tiles cannot be summed as
    cheaply.
    """
    at, rest, length, first = find_tile(size, STEP, TILE)
    query, there = tile_positions(first, length, TILE)
    q, dout = map_start(q, q_strides, at, heads), map_start(dout, dout_strides, at, heads)
    q_vectors = load_map(q, q_strides, query, rest, there, d, STEP, BLOCK_D)
    do_vectors = load_map(dout, dout_strides, query, rest, there, d, STEP, BLOCK_D)
    place = at.to(tl.int64) * (size[0] * size[1] * size[2]) + raster(query, rest, size, STEP)
    logs, deltas = tl.load(lse + place, mask=there, other=0.0), tl.load(delta + place, mask=there, other=0.0)
    k, v = map_start(k, k_strides, at, heads), map_start(v, v_strides, at, heads)
    widths: tl.constexpr = KERNEL if not SHIFT else (2 * KERNEL[0] - 1, 2 * KERNEL[1] - 1, 2 * KERNEL[2] - 1)
    entries: tl.constexpr = widths[0] * widths[1] * widths[2]
    bias += (at % heads) * entries
    parts += tl.program_id(0).to(tl.int64) * entries  # programs count maps first, then tiles
    window = windows(query, length, there, KERNEL, SHIFT)
    for entry in range(entries):
        z = query[0] + entry // (widths[1] * widths[2]) - widths[0] // 2
        y = query[1] + entry // widths[2] % widths[1] - widths[1] // 2
        x = query[2] + entry % widths[2] - widths[2] // 2
        exists = (z >= 0) & (z < length[0]) & (y >= 0) & (y < length[1]) & (x >= 0) & (x < length[2])
        seen = sees(window, keys((z, y, x), exists), (2, 2, 2), KERNEL)
        k_vectors = load_map(k, k_strides, (z, y, x), rest, seen, d, STEP, BLOCK_D)
        v_vectors = load_map(v, v_strides, (z, y, x), rest, seen, d, STEP, BLOCK_D)
        s = own_scores(q_vectors, k_vectors, seen, bias, entry + tl.zeros_like(x), scale, softcap)
        dp = tl.sum(do_vectors.to(tl.float32) * v_vectors.to(tl.float32), 1)
        p = exp(tl.where(seen, s - logs, 0.0))
        tl.store(parts + entry, tl.sum(gradient(s, seen, p, dp, deltas, softcap), 0))
