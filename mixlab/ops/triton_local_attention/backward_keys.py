"""The backward kernels over keys: each gathers its gradient from the queries that see it, in a fixed order."""

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
    store_vectors,
    tile_positions,
    windows,
)
from mixlab.ops.triton_local_attention.scores import exp, gradient, product, scores, shared_scores, weighted


@triton.jit
def backward_keys(
    q: tl.tensor, k: tl.tensor, v: tl.tensor, bias: tl.tensor, lse: tl.tensor, dout: tl.tensor, delta: tl.tensor,
    dk: tl.tensor, dv: tl.tensor, q_strides: tl.tuple, k_strides: tl.tuple, v_strides: tl.tuple, dout_strides: tl.tuple,
    dk_strides: tl.tuple, dv_strides: tl.tuple, size: tl.tuple, heads: tl.tensor, d: tl.tensor, scale: tl.tensor,
    softcap: tl.tensor, KERNEL: tl.constexpr, STEP: tl.constexpr, SHIFT: tl.constexpr, EXTENT: tl.constexpr,
    TILE: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
) -> None:  # fmt: skip
    """Writes ``dk`` and ``dv``; one program a tile of keys."""
    at, rest, length, first = find_tile(size, STEP, TILE)
    key, there = tile_positions(first, length, TILE)
    k, v = map_start(k, k_strides, at, heads), map_start(v, v_strides, at, heads)
    k_vectors = load_map(k, k_strides, key, rest, there, d, STEP, BLOCK_D)
    v_vectors = load_map(v, v_strides, key, rest, there, d, STEP, BLOCK_D)
    q, dout = map_start(q, q_strides, at, heads), map_start(dout, dout_strides, at, heads)
    maps = at.to(tl.int64) * (size[0] * size[1] * size[2])
    if bias is not None:
        widths: tl.constexpr = KERNEL if not SHIFT else (2 * KERNEL[0] - 1, 2 * KERNEL[1] - 1, 2 * KERNEL[2] - 1)
        bias += (at % heads) * (widths[0] * widths[1] * widths[2])
    sum_k = tl.zeros([TILE[0] * TILE[1] * TILE[2], BLOCK_D], tl.float32)
    sum_v = tl.zeros([TILE[0] * TILE[1] * TILE[2], BLOCK_D], tl.float32)
    begin = box_of(first, length, TILE, KERNEL, SHIFT, EXTENT, False)
    place_k = rows(keys(key, there))
    for start in range(0, EXTENT[0] * EXTENT[1] * EXTENT[2], BLOCK):
        query, exists = block_positions(start, begin, length, EXTENT, BLOCK)
        q_vectors = load_map(q, q_strides, query, rest, exists, d, STEP, BLOCK_D)
        do_vectors = load_map(dout, dout_strides, query, rest, exists, d, STEP, BLOCK_D)
        place = maps + raster(query, rest, size, STEP)
        logs, deltas = tl.load(lse + place, mask=exists, other=0.0), tl.load(delta + place, mask=exists, other=0.0)
        seen = sees(columns(windows(query, length, exists, KERNEL, SHIFT)), place_k, EXTENT, KERNEL)
        s = scores(k_vectors, q_vectors, columns(query), rows(key), seen, bias, scale, softcap, KERNEL, SHIFT)
        p = exp(s - logs[None, :])
        sum_v = weighted(p, do_vectors, sum_v, True)
        dp = product(v_vectors, tl.trans(do_vectors))
        sum_k = weighted(gradient(s, seen, p, dp, deltas[None, :], softcap), q_vectors, sum_k, False)
    dk, dv = map_start(dk, dk_strides, at, heads), map_start(dv, dv_strides, at, heads)
    store_map(dk, dk_strides, key, rest, sum_k * scale, there, d, STEP, BLOCK_D)
    store_map(dv, dv_strides, key, rest, sum_v, there, d, STEP, BLOCK_D)


@triton.jit
def backward_shared(
    q: tl.tensor, extra_k: tl.tensor, extra_v: tl.tensor, extra_bias: tl.tensor, lse: tl.tensor, dout: tl.tensor,
    delta: tl.tensor, dek: tl.tensor, dev: tl.tensor, q_strides: tl.tuple, ek_strides: tl.tuple, ev_strides: tl.tuple,
    eb_strides: tl.tuple, dout_strides: tl.tuple, dek_strides: tl.tuple, dev_strides: tl.tuple, size: tl.tuple,
    heads: tl.tensor, d: tl.tensor, entries: tl.tensor, scale: tl.tensor, softcap: tl.tensor, BLOCK: tl.constexpr,
    BLOCK_D: tl.constexpr,
) -> None:  # fmt: skip
    """Writes ``dek`` and ``dev`` of keys that all queries share; one program for 16 of them, over all queries."""
    blocks = tl.cdiv(entries, 16)
    at = tl.program_id(0) // blocks
    e = tl.program_id(0) % blocks * 16 + tl.arange(0, 16)
    there = e < entries
    extra_k, extra_v = map_start(extra_k, ek_strides, at, heads), map_start(extra_v, ev_strides, at, heads)
    k_vectors = load_vectors(extra_k, ek_strides, e * ek_strides[6], there, d, BLOCK_D)
    v_vectors = load_vectors(extra_v, ev_strides, e * ev_strides[6], there, d, BLOCK_D)
    q, dout = map_start(q, q_strides, at, heads), map_start(dout, dout_strides, at, heads)
    if extra_bias is not None:
        extra_bias = map_start(extra_bias, eb_strides, at, heads)
    count = size[0] * size[1] * size[2]
    sum_k, sum_v = tl.zeros([16, BLOCK_D], tl.float32), tl.zeros([16, BLOCK_D], tl.float32)
    for start in range(0, count, BLOCK):
        at_q = start + tl.arange(0, BLOCK)
        exists = at_q < count
        query = (at_q // (size[1] * size[2]), at_q // size[2] % size[1], at_q % size[2])
        q_vectors = load_map(q, q_strides, query, (0, 0, 0), exists, d, (1, 1, 1), BLOCK_D)
        do_vectors = load_map(dout, dout_strides, query, (0, 0, 0), exists, d, (1, 1, 1), BLOCK_D)
        place = at.to(tl.int64) * count + start + tl.arange(0, BLOCK)
        logs, deltas = tl.load(lse + place, mask=exists, other=0.0), tl.load(delta + place, mask=exists, other=0.0)
        seen = there[:, None] & exists[None, :]
        at_e = position_offset(query, (0, 0, 0), eb_strides, (1, 1, 1))[None, :] + e[:, None] * eb_strides[2]
        s = shared_scores(k_vectors, q_vectors, seen, extra_bias, at_e, scale, softcap)
        p = exp(s - logs[None, :])
        sum_v = weighted(p, do_vectors, sum_v, True)
        dp = product(v_vectors, tl.trans(do_vectors))
        sum_k = weighted(gradient(s, seen, p, dp, deltas[None, :], softcap), q_vectors, sum_k, False)
    dek, dev = map_start(dek, dek_strides, at, heads), map_start(dev, dev_strides, at, heads)
    store_vectors(dek, dek_strides, e * dek_strides[6], sum_k * scale, there, d, BLOCK_D)
    store_vectors(dev, dev_strides, e * dev_strides[6], sum_v, there, d, BLOCK_D)
