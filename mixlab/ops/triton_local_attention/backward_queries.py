"""The backward kernel over tiles of queries: their gradients, and those of extra keys of their own."""

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
from mixlab.ops.triton_local_attention.scores import exp, gradient, own_scores, product, scores, shared_scores, weighted


@triton.jit
def backward_queries(
    q: tl.tensor, k: tl.tensor, v: tl.tensor, bias: tl.tensor, extra_k: tl.tensor, extra_v: tl.tensor,
    extra_bias: tl.tensor, out: tl.tensor, lse: tl.tensor, dout: tl.tensor, dlse: tl.tensor, delta: tl.tensor,
    dq: tl.tensor, dek: tl.tensor, dev: tl.tensor, deb: tl.tensor, q_strides: tl.tuple, k_strides: tl.tuple,
    v_strides: tl.tuple, ek_strides: tl.tuple, ev_strides: tl.tuple, eb_strides: tl.tuple, out_strides: tl.tuple,
    dout_strides: tl.tuple, dq_strides: tl.tuple, dek_strides: tl.tuple, dev_strides: tl.tuple, size: tl.tuple,
    heads: tl.tensor, d: tl.tensor, entries: tl.tensor, scale: tl.tensor, softcap: tl.tensor, KERNEL: tl.constexpr,
    STEP: tl.constexpr, SHIFT: tl.constexpr, OWN: tl.constexpr, EXTENT: tl.constexpr, TILE: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
) -> None:  # fmt: skip
    """Writes ``delta`` (``dout · out - dlse``, which the other kernels read), ``dq``, and where they are tensors
    ``dek``, ``dev`` (``OWN``) and ``deb``, the gradient of every query's extra biases ``(B, heads, *spatial, E)``.
    """
    at, rest, length, first = find_tile(size, STEP, TILE)
    query, there = tile_positions(first, length, TILE)
    q, out = map_start(q, q_strides, at, heads), map_start(out, out_strides, at, heads)
    dout = map_start(dout, dout_strides, at, heads)
    q_vectors = load_map(q, q_strides, query, rest, there, d, STEP, BLOCK_D)
    do_vectors = load_map(dout, dout_strides, query, rest, there, d, STEP, BLOCK_D)
    o_vectors = load_map(out, out_strides, query, rest, there, d, STEP, BLOCK_D)
    place = at.to(tl.int64) * (size[0] * size[1] * size[2]) + raster(query, rest, size, STEP)
    logs = tl.load(lse + place, mask=there, other=0.0)
    deltas = tl.sum(do_vectors.to(tl.float32) * o_vectors.to(tl.float32), 1)
    if dlse is not None:
        deltas -= tl.load(dlse + place, mask=there, other=0.0)
    tl.store(delta + place, deltas, mask=there)

    k, v = map_start(k, k_strides, at, heads), map_start(v, v_strides, at, heads)
    if bias is not None:
        widths: tl.constexpr = KERNEL if not SHIFT else (2 * KERNEL[0] - 1, 2 * KERNEL[1] - 1, 2 * KERNEL[2] - 1)
        bias += (at % heads) * (widths[0] * widths[1] * widths[2])
    value = tl.zeros([TILE[0] * TILE[1] * TILE[2], BLOCK_D], tl.float32)
    begin = box_of(first, length, TILE, KERNEL, SHIFT, EXTENT, True)
    window = rows(windows(query, length, there, KERNEL, SHIFT))
    for start in range(0, EXTENT[0] * EXTENT[1] * EXTENT[2], BLOCK):
        key, exists = block_positions(start, begin, length, EXTENT, BLOCK)
        k_vectors = load_map(k, k_strides, key, rest, exists, d, STEP, BLOCK_D)
        v_vectors = load_map(v, v_strides, key, rest, exists, d, STEP, BLOCK_D)
        seen = sees(window, columns(keys(key, exists)), EXTENT, KERNEL)
        s = scores(q_vectors, k_vectors, rows(query), columns(key), seen, bias, scale, softcap, KERNEL, SHIFT)
        dp = product(do_vectors, tl.trans(v_vectors))
        ds = gradient(s, seen, exp(s - logs[:, None]), dp, deltas[:, None], softcap)
        value = weighted(ds, k_vectors, value, False)

    if extra_k is not None:
        extra_k, extra_v = map_start(extra_k, ek_strides, at, heads), map_start(extra_v, ev_strides, at, heads)
        eb_offset = position_offset(query, rest, eb_strides, STEP)
        if extra_bias is not None:
            extra_bias = map_start(extra_bias, eb_strides, at, heads)
        if OWN:
            dek, dev = map_start(dek, dek_strides, at, heads), map_start(dev, dev_strides, at, heads)
            for e in range(entries):
                e_k, e_v = extra_k + e * ek_strides[6], extra_v + e * ev_strides[6]
                k_vectors = load_map(e_k, ek_strides, query, rest, there, d, STEP, BLOCK_D)
                v_vectors = load_map(e_v, ev_strides, query, rest, there, d, STEP, BLOCK_D)
                at_e = eb_offset + e * eb_strides[2]
                s = own_scores(q_vectors, k_vectors, there, extra_bias, at_e, scale, softcap)
                p = exp(s - logs)
                dp = tl.sum(do_vectors.to(tl.float32) * v_vectors.to(tl.float32), 1)
                ds = gradient(s, there, p, dp, deltas, softcap)
                value += ds[:, None] * k_vectors.to(tl.float32)
                gradient_k = (ds * scale)[:, None] * q_vectors.to(tl.float32)
                e_k, e_v = dek + e * dek_strides[6], dev + e * dev_strides[6]
                store_map(e_k, dek_strides, query, rest, gradient_k, there, d, STEP, BLOCK_D)
                gradient_v = p[:, None] * do_vectors.to(tl.float32)
                store_map(e_v, dev_strides, query, rest, gradient_v, there, d, STEP, BLOCK_D)
                if deb is not None:
                    tl.store(deb + place * entries + e, ds, mask=there)
        else:
            for start in range(0, entries, 16):
                e = start + tl.arange(0, 16)
                k_vectors = load_vectors(extra_k, ek_strides, e * ek_strides[6], e < entries, d, BLOCK_D)
                v_vectors = load_vectors(extra_v, ev_strides, e * ev_strides[6], e < entries, d, BLOCK_D)
                seen = there[:, None] & (e < entries)[None, :]
                at_e = eb_offset[:, None] + e[None, :] * eb_strides[2]
                s = shared_scores(q_vectors, k_vectors, seen, extra_bias, at_e, scale, softcap)
                dp = product(do_vectors, tl.trans(v_vectors))
                ds = gradient(s, seen, exp(s - logs[:, None]), dp, deltas[:, None], softcap)
                value = weighted(ds, k_vectors, value, False)
                if deb is not None:
                    tl.store(deb + place[:, None] * entries + e[None, :], ds, mask=seen)

    dq = map_start(dq, dq_strides, at, heads)
    store_map(dq, dq_strides, query, rest, value * scale, there, d, STEP, BLOCK_D)
