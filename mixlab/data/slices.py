"""Slices of volumes in NIfTI files as 2D images and masks.

Volumes are turned to RAS. A slice is shown as radiologists see it: its first row is anterior (axial) or superior
(coronal, sagittal); its columns run from left to right (sagittal: from posterior to anterior).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from mixlab.data import readers
from mixlab.data.card import event
from mixlab.data.files import read_grids
from mixlab.data.images import Array
from mixlab.data.mask_classes import MaskClasses
from mixlab.data.mask_files import read_mask
from mixlab.data.masks import digest

AXES = {"axial": 0, "coronal": 1, "sagittal": 2}
"""The axis of (z, y, x) that a slice is cut across."""

_READING = Lock()  # slices of one volume are asked for by several threads, and one of them should read it


@dataclass(frozen=True)
class Grid:
    """Size and place of a volume, from its header."""

    channels: int
    shape: tuple[int, ...]
    """(z, y, x)"""
    spacing: tuple[float, ...]
    """Millimetres, (z, y, x)"""


def read_grid(path: Path) -> Grid:
    """The header of a volume ``(x, y, z)`` or ``(x, y, z, channels)``."""
    stored = readers.load_canonical(path)
    if len(stored.shape) not in (3, 4):
        raise ValueError(f"it has the shape {stored.shape}; volumes have three axes, or a fourth of channels")
    spacing = tuple(round(float(s), 6) for s in reversed(stored.header.get_zooms()[:3]))
    shape = tuple(int(n) for n in reversed(stored.shape[:3]))
    return Grid(1 if len(stored.shape) == 3 else int(stored.shape[3]), shape, spacing)


@functools.lru_cache(maxsize=4)
def read_volume(path: Path) -> Array:
    """Float32 ``(C, z, y, x)`` in [0, 1]: in each channel the volume's 0.5 and 99.5 percentiles become 0 and 1."""
    values = np.asarray(readers.load_canonical(path).dataobj)
    channels = [values] if values.ndim == 3 else list(np.moveaxis(values, 3, 0))
    return np.stack([readers.percentile_scaled(channel.T) for channel in channels])


@functools.lru_cache(maxsize=4)
def read_labels(path: Path) -> Array:
    """The stored integers ``(z, y, x)``."""
    return read_mask(path)


@functools.cache
def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cut(read: Callable[[Path], Array], path: Path, axis: int, place: int) -> Array:
    with _READING:
        volume = read(path)
    # rows are turned over: RAS counts upwards and forwards, pictures begin at the top
    return np.ascontiguousarray(np.take(volume, place, axis=volume.ndim - 3 + axis)[..., ::-1, :])


def joined(slices: Sequence[Array], axis: int) -> Array:
    """The volume ``(z, y, x)`` whose slices across ``axis`` are shown as these ``(H, W)``."""
    return np.stack([shown[::-1] for shown in slices], axis=axis)


class VolumeSlices:
    """All slices of volumes, volume by volume, from bottom to top (axial), back to front or left to right.

    Volumes are read when a slice is asked for; the last four stay in memory.

    Args:
        paths: NIfTI volumes.
        names: what a user calls them, in errors.
        plane: ``axial``, ``coronal`` or ``sagittal``.

    Raises:
        UserError: files are broken; the message names them all.
    """

    in_memory = False

    def __init__(self, paths: Sequence[Path], names: Sequence[str], plane: str) -> None:
        self.volumes = list(paths)
        self.axis = AXES[plane]
        grids = read_grids(self.volumes, names, read_grid, read_volume)
        self.places = [(v, place) for v, grid in enumerate(grids) for place in range(grid.shape[self.axis])]
        self.names = [f"{names[v]} slice {place}" for v, place in self.places]
        self.shapes: Sequence[tuple[int, ...]] = [
            (grids[v].channels, *_without(grids[v].shape, self.axis)) for v, _ in self.places
        ]
        self.spacing = [_without(grids[v].spacing, self.axis) for v, _ in self.places]
        message = f"intensities of {len(grids)} volumes scaled by their own 0.5 and 99.5 percentiles"
        self.events = [event("intensity", message)]

    def __len__(self) -> int:
        return len(self.places)

    def read(self, index: int) -> Array:
        """The slice ``(C, H, W)``."""
        volume, place = self.places[index]
        return _cut(read_volume, self.volumes[volume], self.axis, place)

    def digest(self, index: int) -> str:
        """SHA-256 of the volume's file and the slice's place."""
        volume, place = self.places[index]
        return hashlib.sha256(f"{_file_digest(self.volumes[volume])} {self.axis} {place}".encode()).hexdigest()


class MaskSlices:
    """The masks of :class:`VolumeSlices`.

    Args:
        paths: the label volume of each image volume.
        names: what a user calls them, in errors.
        slices: the images.
        classes: what the stored values mean.

    Raises:
        UserError: files are broken; the message names them all.
    """

    def __init__(self, paths: Sequence[Path], names: Sequence[str], slices: VolumeSlices, classes: MaskClasses) -> None:
        self.volumes = list(paths)
        self.slices = slices
        self.classes = classes
        grids = read_grids(self.volumes, names, read_grid, read_mask)
        self.shapes: Sequence[tuple[int, ...]] = [_without(grids[v].shape, slices.axis) for v, _ in slices.places]
        self.depths = [grid.shape[slices.axis] for grid in grids]

    def __len__(self) -> int:
        return len(self.slices)

    def read(self, index: int) -> Array:
        """Class indices ``(H, W)``, uint8."""
        volume, place = self.slices.places[index]
        if place >= self.depths[volume]:
            raise ValueError(f"its volume has {self.depths[volume]} slices, the image's more")
        return self.classes.indices(_cut(read_labels, self.volumes[volume], self.slices.axis, place))

    def digest(self, mask: Array) -> str:
        """Of the class indices."""
        return digest(mask)


def _without(values: tuple[Any, ...], axis: int) -> tuple[Any, ...]:
    return (*values[:axis], *values[axis + 1 :])
