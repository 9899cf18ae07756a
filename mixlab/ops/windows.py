"""Windows on grids: kernel sizes per axis, and how many neighbours lie inside the image.

Axes are in the order of the tensor, ``(D, H, W)`` in 3D.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from mixlab.errors import Quoted, expected

PerAxis = int | Sequence[int]


def per_axis(value: PerAxis, spatial_dims: int, what: str, *, at_least: int = 1) -> tuple[int, ...]:
    """``value`` as one int an axis.

    Raises:
        UserError: not an int or ``spatial_dims`` ints, or one below ``at_least``.
    """
    values = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,) * spatial_dims
    if len(values) != spatial_dims or not all(isinstance(v, int) and not isinstance(v, bool) for v in values):
        raise expected(what, f"an int or {spatial_dims} ints (one per axis)", value)
    if min(values) < at_least:
        raise expected(what, f"values of at least {at_least}", value)
    return values


def odd_kernel(value: PerAxis, spatial_dims: int, where: str) -> tuple[int, ...]:
    """A window that has a centre: an odd, positive size per axis.

    Raises:
        UserError: a size is even or not positive.
    """
    kernel = per_axis(value, spatial_dims, f"{where} kernel_size")
    for k in kernel:
        if k % 2 == 0:
            hint = f"{k - 1} or {k + 1}" if k > 1 else "3"
            raise expected(f"{where} kernel_size", "odd sizes (a window needs a centre)", value, hint)
    return kernel


def check_spatial_dims(spatial_dims: int, where: str) -> int:
    """1, 2 or 3, else a UserError."""
    if spatial_dims not in (1, 2, 3):
        raise expected(f"{where} spatial_dims", "1, 2 or 3", spatial_dims)
    return spatial_dims


def check_map(x_shape: Sequence[int], dim: int, spatial_dims: int, where: str) -> None:
    """A map ``(B, dim, *spatial)`` with ``spatial_dims`` axes, else a UserError."""
    if len(x_shape) != spatial_dims + 2 or x_shape[1] != dim:
        want = f"(B, {dim}, {', '.join('DHW'[-spatial_dims:])})"
        raise expected(f"{where} input", f"shape {want}", Quoted(str(tuple(x_shape))))


def offsets(kernel: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, ...]]:
    """The window's offsets from its centre, row-major: for 3x3 from ``(-1, -1)`` to ``(1, 1)``."""
    axes = [[(i - k // 2) * d for i in range(k)] for k, d in zip(kernel, dilation, strict=True)]
    return list(itertools.product(*axes))


def clipped_pairs(size: Sequence[int], kernel: Sequence[int], dilation: Sequence[int]) -> int:
    """Number of (query, neighbour inside the image) pairs of a centred window on a grid of ``size``.

    The window is a box, so the count is a product over axes of ``sum_o max(0, n - |o|)`` over the axis's offsets ``o``.
    """
    return math.prod(
        sum(max(0, n - abs(i - k // 2) * d) for i in range(k)) for n, k, d in zip(size, kernel, dilation, strict=True)
    )


def conv_output(
    size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> tuple[int, ...]:
    """Output size of a convolution (may hold values below 1 when the input is too small)."""
    return tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True))
