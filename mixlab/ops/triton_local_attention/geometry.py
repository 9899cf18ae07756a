"""Where a program's tile lies, which positions its windows reach, and where those lie in memory.

Positions with the same remainder of the dilation see only each other, so every remainder has a grid of its own in
which the window is not dilated; all positions below are positions in that grid. A tile is a box of ``TILE`` positions
of it; what its window reaches is a box as well (the tile and its halo, cut at the border), walked in blocks of
positions. Grids of one or two axes have leading axes of length one.

Strides of a map are ``(batch, head, channel, z, y, x)``. Those of extra keys have the entry at the end; those of their
biases have it in the channel's place.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def find_tile(size: tl.tuple, STEP: tl.constexpr, TILE: tl.constexpr) -> tl.tuple:
    """This program's map ``batch * heads + head``, remainders, lengths of their grid, and the tile's first position."""
    tiles_z = tl.cdiv(tl.cdiv(size[0], STEP[0]), TILE[0])
    tiles_y = tl.cdiv(tl.cdiv(size[1], STEP[1]), TILE[1])
    tiles_x = tl.cdiv(tl.cdiv(size[2], STEP[2]), TILE[2])
    rests_z, rests_y = tl.minimum(STEP[0], size[0]), tl.minimum(STEP[1], size[1])
    rests_x = tl.minimum(STEP[2], size[2])
    at = tl.program_id(0)
    x = at % tiles_x * TILE[2]
    at //= tiles_x
    y = at % tiles_y * TILE[1]
    at //= tiles_y
    z = at % tiles_z * TILE[0]
    at //= tiles_z
    rest_x = at % rests_x
    at //= rests_x
    rest_y = at % rests_y
    at //= rests_y
    rest_z = at % rests_z
    rest = (rest_z, rest_y, rest_x)
    length_z = tl.cdiv(size[0] - rest_z, STEP[0])
    length_y = tl.cdiv(size[1] - rest_y, STEP[1])
    length_x = tl.cdiv(size[2] - rest_x, STEP[2])
    return at // rests_z, rest, (length_z, length_y, length_x), (z, y, x)


@triton.jit
def tile_positions(first: tl.tuple, length: tl.tuple, TILE: tl.constexpr) -> tl.tuple:
    """All positions of a tile, and which of them exist."""
    at = tl.arange(0, TILE[0] * TILE[1] * TILE[2])
    x = first[2] + at % TILE[2]
    y = first[1] + at // TILE[2] % TILE[1]
    z = first[0] + at // (TILE[2] * TILE[1])
    return (z, y, x), (z < length[0]) & (y < length[1]) & (x < length[2])


@triton.jit
def block_positions(start: tl.tensor, first: tl.tuple, extent: tl.tuple, BLOCK: tl.constexpr) -> tl.tuple:
    """The positions number ``start`` to ``start + BLOCK`` of a box, and which of them exist."""
    at = start + tl.arange(0, BLOCK)
    plane = extent[1] * extent[2]
    return (first[0] + at // plane, first[1] + at % plane // extent[2], first[2] + at % extent[2]), at < (
        extent[0] * plane
    )


@triton.jit
def window_start(query: tl.tensor, length: tl.tensor, K: tl.constexpr, SHIFT: tl.constexpr) -> tl.tensor:
    """The first key of a window along an axis."""
    if SHIFT:
        start = tl.maximum(tl.minimum(query - K // 2, length - K), 0)
    else:
        start = query - K // 2
    return start


@triton.jit
def keys_of(first: tl.tensor, length: tl.tensor, T: tl.constexpr, K: tl.constexpr, SHIFT: tl.constexpr) -> tl.tuple:
    """First key, and number of keys, that a tile of ``T`` queries sees along an axis."""
    start = tl.maximum(window_start(first, length, K, SHIFT), 0)
    end = tl.minimum(window_start(tl.minimum(first + T, length) - 1, length, K, SHIFT) + K, length)
    return start, tl.maximum(end - start, 0)


@triton.jit
def queries_of(first: tl.tensor, length: tl.tensor, T: tl.constexpr, K: tl.constexpr, SHIFT: tl.constexpr) -> tl.tuple:
    """First query, and number of queries, that see a tile of ``T`` keys along an axis."""
    last = tl.minimum(first + T, length) - 1
    start, end = first - K // 2, last + K // 2 + 1
    if SHIFT:  # the first K keys are seen from the border on, the last K up to the border
        start = tl.where(first < K, 0, start)
        end = tl.where(last >= length - K, length, end)
    start, end = tl.maximum(start, 0), tl.minimum(end, length)
    return start, tl.where(last >= first, tl.maximum(end - start, 0), 0)


@triton.jit
def box_of(
    first: tl.tuple, length: tl.tuple, TILE: tl.constexpr, KERNEL: tl.constexpr, SHIFT: tl.constexpr,
    KEYS: tl.constexpr,
) -> tl.tuple:  # fmt: skip
    """First position and extent of the box of keys (or of queries) that a tile has to do with."""
    if KEYS:
        z, extent_z = keys_of(first[0], length[0], TILE[0], KERNEL[0], SHIFT)
        y, extent_y = keys_of(first[1], length[1], TILE[1], KERNEL[1], SHIFT)
        x, extent_x = keys_of(first[2], length[2], TILE[2], KERNEL[2], SHIFT)
    else:
        z, extent_z = queries_of(first[0], length[0], TILE[0], KERNEL[0], SHIFT)
        y, extent_y = queries_of(first[1], length[1], TILE[1], KERNEL[1], SHIFT)
        x, extent_x = queries_of(first[2], length[2], TILE[2], KERNEL[2], SHIFT)
    return (z, y, x), (extent_z, extent_y, extent_x)


@triton.jit
def sees(
    query: tl.tuple, key: tl.tuple, length: tl.tuple, both: tl.tensor, TILE: tl.constexpr, KERNEL: tl.constexpr,
    SHIFT: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Whether the key is in the query's window. An axis along which the tile has one position is always in it."""
    seen = both
    if TILE[0] > 1:
        place = key[0] - window_start(query[0], length[0], KERNEL[0], SHIFT)
        seen = seen & (place >= 0) & (place < KERNEL[0])
    if TILE[1] > 1:
        place = key[1] - window_start(query[1], length[1], KERNEL[1], SHIFT)
        seen = seen & (place >= 0) & (place < KERNEL[1])
    if TILE[2] > 1:
        place = key[2] - window_start(query[2], length[2], KERNEL[2], SHIFT)
        seen = seen & (place >= 0) & (place < KERNEL[2])
    return seen


@triton.jit
def bias_entry(query: tl.tuple, key: tl.tuple, KERNEL: tl.constexpr, SHIFT: tl.constexpr) -> tl.tensor:
    """Which entry of a flat bias a pair has."""
    if SHIFT:
        z, y = key[0] - query[0] + KERNEL[0] - 1, key[1] - query[1] + KERNEL[1] - 1
        entry = (z * (2 * KERNEL[1] - 1) + y) * (2 * KERNEL[2] - 1) + key[2] - query[2] + KERNEL[2] - 1
    else:
        z, y = key[0] - query[0] + KERNEL[0] // 2, key[1] - query[1] + KERNEL[1] // 2
        entry = (z * KERNEL[1] + y) * KERNEL[2] + key[2] - query[2] + KERNEL[2] // 2
    return entry


@triton.jit
def rows(at: tl.tuple) -> tl.tuple:
    """Positions as a column."""
    return (at[0][:, None], at[1][:, None], at[2][:, None])


@triton.jit
def columns(at: tl.tuple) -> tl.tuple:
    """Positions as a row."""
    return (at[0][None, :], at[1][None, :], at[2][None, :])


@triton.jit
def raster(at: tl.tuple, rest: tl.tuple, size: tl.tuple, STEP: tl.constexpr) -> tl.tensor:
    """Number of a position in the whole grid, row by row."""
    z, y, x = at[0] * STEP[0] + rest[0], at[1] * STEP[1] + rest[1], at[2] * STEP[2] + rest[2]
    return (z * size[1] + y) * size[2] + x


@triton.jit
def position_offset(at: tl.tuple, rest: tl.tuple, strides: tl.tuple, STEP: tl.constexpr) -> tl.tensor:
    """Where a position lies in a map."""
    z, y, x = at[0] * STEP[0] + rest[0], at[1] * STEP[1] + rest[1], at[2] * STEP[2] + rest[2]
    return z * strides[3] + y * strides[4] + x * strides[5]


@triton.jit
def map_start(pointer: tl.tensor, strides: tl.tuple, at: tl.tensor, heads: tl.tensor) -> tl.tensor:
    """Where map number ``batch * heads + head`` begins."""
    return pointer + (at // heads).to(tl.int64) * strides[0] + (at % heads).to(tl.int64) * strides[1]


@triton.jit
def vectors(pointer: tl.tensor, strides: tl.tuple, offset: tl.tensor, BLOCK_D: tl.constexpr) -> tl.tensor:
    """Pointers to the channels at offsets: ``(offsets, BLOCK_D)``."""
    return pointer + offset[:, None] + tl.arange(0, BLOCK_D)[None, :] * strides[2]


@triton.jit
def load_vectors(
    pointer: tl.tensor, strides: tl.tuple, offset: tl.tensor, there: tl.tensor, d: tl.tensor, BLOCK_D: tl.constexpr
) -> tl.tensor:
    """``(offsets, BLOCK_D)``, zero where there is no position or no channel."""
    mask = there[:, None] & (tl.arange(0, BLOCK_D) < d)[None, :]
    return tl.load(vectors(pointer, strides, offset, BLOCK_D), mask=mask, other=0.0)


@triton.jit
def store_vectors(
    pointer: tl.tensor, strides: tl.tuple, offset: tl.tensor, value: tl.tensor, there: tl.tensor, d: tl.tensor,
    BLOCK_D: tl.constexpr,
) -> None:  # fmt: skip
    """The opposite."""
    mask = there[:, None] & (tl.arange(0, BLOCK_D) < d)[None, :]
    tl.store(vectors(pointer, strides, offset, BLOCK_D), value.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def load_map(
    pointer: tl.tensor, strides: tl.tuple, at: tl.tuple, rest: tl.tuple, there: tl.tensor, d: tl.tensor,
    STEP: tl.constexpr, BLOCK_D: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Vectors at positions of a map."""
    return load_vectors(pointer, strides, position_offset(at, rest, strides, STEP), there, d, BLOCK_D)


@triton.jit
def store_map(
    pointer: tl.tensor, strides: tl.tuple, at: tl.tuple, rest: tl.tuple, value: tl.tensor, there: tl.tensor,
    d: tl.tensor, STEP: tl.constexpr, BLOCK_D: tl.constexpr,
) -> None:  # fmt: skip
    """The opposite."""
    store_vectors(pointer, strides, position_offset(at, rest, strides, STEP), value, there, d, BLOCK_D)
