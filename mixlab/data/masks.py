"""Masks of a segmentation set: stores of stored masks here, those that are presented in :mod:`prepared_masks`.

A mask is uint8 and has one of two forms:

* an index map ``(*spatial)``: the class of each pixel, 0 to K-1, or :data:`IGNORE` where a pixel counts for nothing;
* overlapping structures ``(K, *spatial)`` of 0 and 1: a pixel may belong to none or to several.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from mixlab.data.images import Array

IGNORE = 255
"""The value of pixels that count for nothing, in index maps of sets whose card has an ``ignore_label``."""
MOST_CLASSES = IGNORE


class MaskStore(Protocol):
    """Stored masks by number; the numbers are those of the images."""

    shapes: Sequence[tuple[int, ...]]
    """``(*spatial)`` of each mask, known without decoding it."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Array:
        """The mask, uint8; raises OSError or ValueError when it is broken or has values that are no class."""

    def digest(self, mask: Array) -> str:
        """SHA-256 of a mask that was read, the same on every machine."""


class ArrayMasks:
    """Index maps in one array ``(N, *spatial)`` of integers."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.shapes: Sequence[tuple[int, ...]] = [tuple(array.shape[1:])] * len(array)

    def __len__(self) -> int:
        return len(self.array)

    def read(self, index: int) -> Array:
        """The map as a view, in the array's own type."""
        return np.asarray(self.array[index])

    def digest(self, mask: Array) -> str:
        """Of the values as 64-bit integers: fingerprints of older versions stay."""
        return hashlib.sha256(np.ascontiguousarray(mask).astype("<i8").tobytes()).hexdigest()


class BlankMasks:
    """Masks of zeros, for images without a truth."""

    def __init__(self, shapes: Sequence[tuple[int, ...]], planes: int | None) -> None:
        self.shapes = shapes
        self.planes = planes

    def __len__(self) -> int:
        return len(self.shapes)

    def read(self, index: int) -> Array:
        """``(*spatial)``, or ``(K, *spatial)`` for ``planes`` overlapping structures."""
        return np.zeros((*(() if self.planes is None else (self.planes,)), *self.shapes[index]), dtype=np.uint8)

    def digest(self, mask: Array) -> str:
        """Of the zeros."""
        return digest(mask)


def digest(mask: Array) -> str:
    """SHA-256 of a uint8 mask with its shape."""
    return hashlib.sha256(f"mask{mask.shape}".encode() + np.ascontiguousarray(mask).tobytes()).hexdigest()


def mask_store(targets: Any) -> MaskStore:
    """The targets of a segmentation set as a store; an array is taken as index maps."""
    return targets if hasattr(targets, "digest") else ArrayMasks(np.asarray(targets))


def count(mask: Array, classes: int, *, overlapping: bool, ignore: int | None) -> tuple[Array, int]:
    """Pixels of each class ``(K,)`` (of overlapping structures: positive ones), and pixels to be ignored.

    Raises:
        ValueError: a value is no class, or the mask has not the form that the set says.
    """
    if overlapping:
        if len(mask) != classes:
            raise ValueError(f"it has {len(mask)} structures, not {classes}")
        if mask.size and mask.max() > 1:
            raise ValueError(f"it has the value {mask.max()}; overlapping structures are 0 or 1")
        return mask.reshape(classes, -1).sum(axis=1, dtype=np.int64), 0
    if mask.dtype.kind not in "bui" or (mask.size and mask.min() < 0):
        raise ValueError(f"it has values that are no class ({mask.dtype}, from {mask.min()})")
    found = np.bincount(mask.ravel(), minlength=IGNORE + 1)
    ignored = int(found[ignore]) if ignore is not None else 0
    if ignore is not None:
        found[ignore] = 0
    wrong = [int(v) for v in np.flatnonzero(found[classes:]) + classes]
    if wrong:
        raise ValueError(f"it has {listed(wrong)} outside the classes 0 to {classes - 1}")
    return found[:classes].astype(np.int64), ignored


def listed(values: Sequence[Any]) -> str:
    """``the value 7`` or ``the values 3, 7, 9, ...``."""
    text = ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")
    return f"the value{'s' if len(values) > 1 else ''} {text}"
