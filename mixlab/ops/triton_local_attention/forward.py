"""The forward kernel: one program a tile of queries, the softmax built up block by block of keys."""

from __future__ import annotations

import triton
import triton.language as tl

from mixlab.ops.triton_local_attention.geometry import (
    block_positions,
    box_of,
    columns,
    find_tile,
    keys,
    load_map,
    load_vectors,
    map_start,
    position_offset,
    raster,
    rows,
    sees,
    store_map,
    tile_positions,
    windows,
)
from mixlab.ops.triton_local_attention.scores import MASKED, exp, own_scores, scores, shared_scores, weighted


@triton.jit
def forward(
    q: tl.tensor, k: tl.tensor, v: tl.tensor, bias: tl.tensor, extra_k: tl.tensor, extra_v: tl.tensor,
    extra_bias: tl.tensor, out: tl.tensor, lse: tl.tensor, q_strides: tl.tuple, k_strides: tl.tuple,
    v_strides: tl.tuple, ek_strides: tl.tuple, ev_strides: tl.tuple, eb_strides: tl.tuple, out_strides: tl.tuple,
    size: tl.tuple, heads: tl.tensor, d: tl.tensor, entries: tl.tensor, scale: tl.tensor, softcap: tl.tensor,
    KERNEL: tl.constexpr, STEP: tl.constexpr, SHIFT: tl.constexpr, OWN: tl.constexpr, EXTENT: tl.constexpr,
    TILE: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
) -> None:  # fmt: skip
    """Writes ``out`` and ``lse``. ``OWN``: every query has extra keys of its own.

    A query that does not exist (a tile reaches over the border) has zeros for a vector and sees nothing: all its scores
    are ``MASKED``, its sums are finite, and they are not stored.
    """
    at, rest, length, first = find_tile(size, STEP, TILE)
    query, there = tile_positions(first, length, TILE)
    q_vectors = load_map(map_start(q, q_strides, at, heads), q_strides, query, rest, there, d, STEP, BLOCK_D)
    k, v = map_start(k, k_strides, at, heads), map_start(v, v_strides, at, heads)
    if bias is not None:
        widths: tl.constexpr = KERNEL if not SHIFT else (2 * KERNEL[0] - 1, 2 * KERNEL[1] - 1, 2 * KERNEL[2] - 1)
        bias += (at % heads) * (widths[0] * widths[1] * widths[2])
    top = tl.full([TILE[0] * TILE[1] * TILE[2]], MASKED, tl.float32)
    total = tl.zeros([TILE[0] * TILE[1] * TILE[2]], tl.float32)
    value = tl.zeros([TILE[0] * TILE[1] * TILE[2], BLOCK_D], tl.float32)

    begin = box_of(first, length, TILE, KERNEL, SHIFT, EXTENT, True)
    window = rows(windows(query, length, there, KERNEL, SHIFT))
    for start in range(0, EXTENT[0] * EXTENT[1] * EXTENT[2], BLOCK):
        key, exists = block_positions(start, begin, length, EXTENT, BLOCK)
        k_vectors = load_map(k, k_strides, key, rest, exists, d, STEP, BLOCK_D)
        v_vectors = load_map(v, v_strides, key, rest, exists, d, STEP, BLOCK_D)
        seen = sees(window, columns(keys(key, exists)), EXTENT, KERNEL)
        s = scores(q_vectors, k_vectors, rows(query), columns(key), seen, bias, scale, softcap, KERNEL, SHIFT)
        # A row without a key so far gathers weights of one; the first true score makes `shrink` zero and removes them.
        higher = tl.maximum(top, tl.max(s, 1))
        p, shrink = exp(s - higher[:, None]), exp(top - higher)
        top, total = higher, total * shrink + tl.sum(p, 1)
        value = weighted(p, v_vectors, value * shrink[:, None], True)

    if extra_k is not None:
        extra_k, extra_v = map_start(extra_k, ek_strides, at, heads), map_start(extra_v, ev_strides, at, heads)
        eb_offset = position_offset(query, rest, eb_strides, STEP)
        if extra_bias is not None:
            extra_bias = map_start(extra_bias, eb_strides, at, heads)
        if OWN:
            for e in range(entries):
                e_k, e_v = extra_k + e * ek_strides[6], extra_v + e * ev_strides[6]
                k_vectors = load_map(e_k, ek_strides, query, rest, there, d, STEP, BLOCK_D)
                v_vectors = load_map(e_v, ev_strides, query, rest, there, d, STEP, BLOCK_D)
                at_e = eb_offset + e * eb_strides[2]
                s = own_scores(q_vectors, k_vectors, there, extra_bias, at_e, scale, softcap)
                higher = tl.maximum(top, s)
                p, shrink = exp(s - higher), exp(top - higher)
                top, total = higher, total * shrink + p
                value = value * shrink[:, None] + p[:, None] * v_vectors.to(tl.float32)
        else:
            for start in range(0, entries, 16):
                e = start + tl.arange(0, 16)
                k_vectors = load_vectors(extra_k, ek_strides, e * ek_strides[6], e < entries, d, BLOCK_D)
                v_vectors = load_vectors(extra_v, ev_strides, e * ev_strides[6], e < entries, d, BLOCK_D)
                seen = there[:, None] & (e < entries)[None, :]
                at_e = eb_offset[:, None] + e[None, :] * eb_strides[2]
                s = shared_scores(q_vectors, k_vectors, seen, extra_bias, at_e, scale, softcap)
                higher = tl.maximum(top, tl.max(s, 1))
                p, shrink = exp(s - higher[:, None]), exp(top - higher)
                top, total = higher, total * shrink + tl.sum(p, 1)
                value = weighted(p, v_vectors, value * shrink[:, None], True)

    value = value / total[:, None]
    out = map_start(out, out_strides, at, heads)
    store_map(out, out_strides, query, rest, value, there, d, STEP, BLOCK_D)
    lse += at.to(tl.int64) * (size[0] * size[1] * size[2])
    tl.store(lse + raster(query, rest, size, STEP), top + tl.log(total), mask=there)
