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
def block_positions(
    start: tl.tensor, first: tl.tuple, length: tl.tuple, EXTENT: tl.constexpr, BLOCK: tl.constexpr
) -> tl.tuple:
    """The positions number ``start`` to ``start + BLOCK`` of a box, and which of them exist."""
    at = start + tl.arange(0, BLOCK)
    x = first[2] + at % EXTENT[2]
    y = first[1] + at // EXTENT[2] % EXTENT[1]
    z = first[0] + at // (EXTENT[2] * EXTENT[1])
    exists = (at < EXTENT[0] * EXTENT[1] * EXTENT[2]) & (z < length[0]) & (y < length[1]) & (x < length[2])
    return (z, y, x), exists


@triton.jit
def window_start(query: tl.tensor, length: tl.tensor, K: tl.constexpr, SHIFT: tl.constexpr) -> tl.tensor:
    """The first key of a window along an axis."""
    if SHIFT:
        start = tl.maximum(tl.minimum(query - K // 2, length - K), 0)
    else:
        start = query - K // 2
    return start


@triton.jit
def first_query(
    first: tl.tensor, length: tl.tensor, T: tl.constexpr, K: tl.constexpr, SHIFT: tl.constexpr
) -> tl.tensor:
    """The first query along an axis that sees one of a tile of ``T`` keys."""
    start = first - K // 2
    if SHIFT:  # the first K keys are seen from the border on
        start = tl.where(first < K, 0, start)
    return start


@triton.jit
def box_of(
    first: tl.tuple, length: tl.tuple, TILE: tl.constexpr, KERNEL: tl.constexpr, SHIFT: tl.constexpr,
    EXTENT: tl.constexpr, KEYS: tl.constexpr,
) -> tl.tuple:  # fmt: skip
    """Where the box of ``EXTENT`` positions begins with the keys (or queries) that a tile has to do with.

    It is moved inside the grid where it fits in.
    """
    if KEYS:
        z = window_start(first[0], length[0], KERNEL[0], SHIFT)
        y = window_start(first[1], length[1], KERNEL[1], SHIFT)
        x = window_start(first[2], length[2], KERNEL[2], SHIFT)
    else:
        z = first_query(first[0], length[0], TILE[0], KERNEL[0], SHIFT)
        y = first_query(first[1], length[1], TILE[1], KERNEL[1], SHIFT)
        x = first_query(first[2], length[2], TILE[2], KERNEL[2], SHIFT)
    z = tl.maximum(tl.minimum(z, length[0] - EXTENT[0]), 0)
    y = tl.maximum(tl.minimum(y, length[1] - EXTENT[1]), 0)
    x = tl.maximum(tl.minimum(x, length[2] - EXTENT[2]), 0)
    return (z, y, x)


@triton.jit
def windows(
    query: tl.tuple, length: tl.tuple, exists: tl.tensor, KERNEL: tl.constexpr, SHIFT: tl.constexpr
) -> tl.tuple:
    """Where the windows of queries start; that of a query that does not exist lies far outside."""
    z = window_start(query[0], length[0], KERNEL[0], SHIFT)
    y = window_start(query[1], length[1], KERNEL[1], SHIFT)
    return (z, y, tl.where(exists, window_start(query[2], length[2], KERNEL[2], SHIFT), 1 << 24))


@triton.jit
def keys(key: tl.tuple, exists: tl.tensor) -> tl.tuple:
    """Keys to compare with windows; one that does not exist lies far outside."""
    return (key[0], key[1], tl.where(exists, key[2], -(1 << 24)))


@triton.jit
def sees(start: tl.tuple, key: tl.tuple, EXTENT: tl.constexpr, KERNEL: tl.constexpr) -> tl.tensor:
    """Whether :func:`keys` lie in :func:`windows`.

    As an unsigned number a place before the window is large. Along an axis on which a box has one position it is in the
    window.
    """
    seen = (key[2] - start[2]).to(tl.uint32) < KERNEL[2]
    if EXTENT[1] > 1:
        seen = seen & ((key[1] - start[1]).to(tl.uint32) < KERNEL[1])
    if EXTENT[0] > 1:
        seen = seen & ((key[0] - start[0]).to(tl.uint32) < KERNEL[0])
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
