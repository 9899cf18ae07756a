"""Stores of raw images: arrays in memory here, files in :mod:`mixlab.data.files`.

A raw image is an array ``(C, *spatial)`` whose values are 8- or 16-bit integers (their dtype's range is [0, 1])
or float32 that is already in [0, 1].
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mixlab.errors import expected

Array = NDArray[Any]
RAW_DTYPES = ("uint8", "uint16", "float32")


class ImageStore(Protocol):
    """Raw images by number."""

    in_memory: bool
    """Whether reading costs nothing."""
    shapes: Sequence[tuple[int, ...]]
    """``(C, *spatial)`` of each image, known without decoding it."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Array:
        """The decoded image; raises OSError or ValueError when it is broken."""

    def digest(self, index: int) -> str:
        """SHA-256 of the image's content, the same on every machine."""


class ArrayImages:
    """Images in one or several arrays, one after the other: ``(N, *spatial)`` or ``(N, *spatial, C)``.

    Raises:
        UserError: an array is neither uint8, uint16 nor float32.
    """

    in_memory = True

    def __init__(self, arrays: Sequence[Array], *, channels_last: bool = False) -> None:
        wrong = sorted({a.dtype.name for a in arrays} - set(RAW_DTYPES))
        if wrong:
            raise expected("image arrays", f"one of {', '.join(RAW_DTYPES)}", wrong, "float32 in [0, 1]")
        self.arrays = [np.ascontiguousarray(a) for a in arrays]
        self.channels_last = channels_last
        self.little = [a.astype(a.dtype.newbyteorder("<"), copy=False) for a in self.arrays]
        self.heads = [f"{a.dtype.name}{a.shape[1:]}".encode() for a in self.arrays]
        self.starts = [0, *accumulate(len(a) for a in self.arrays)]
        self.shapes: Sequence[tuple[int, ...]] = [shape for a in self.arrays for shape in [self._shape(a)] * len(a)]

    def _shape(self, array: Array) -> tuple[int, ...]:
        shape = array.shape[1:]
        return (shape[-1], *shape[:-1]) if self.channels_last else (1, *shape)

    def __len__(self) -> int:
        return self.starts[-1]

    def _place(self, index: int) -> tuple[int, int]:
        part = bisect_right(self.starts, index) - 1
        return part, index - self.starts[part]

    def read(self, index: int) -> Array:
        """The image as a view, ``(C, *spatial)``."""
        part, place = self._place(index)
        image = self.arrays[part][place]
        return np.moveaxis(image, -1, 0) if self.channels_last else image[None]

    def digest(self, index: int) -> str:
        """SHA-256 of the pixels in little-endian order, with shape and type."""
        part, place = self._place(index)
        return hashlib.sha256(self.heads[part] + self.little[part][place].tobytes()).hexdigest()
