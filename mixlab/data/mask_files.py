"""Masks in files, decoded when they are read."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mixlab.data import readers
from mixlab.data.files import read_headers, reason_of
from mixlab.data.images import Array
from mixlab.data.mask_classes import MaskClasses, packed
from mixlab.data.masks import digest
from mixlab.data.prepared_masks import bad_masks

INSTANCES = MaskClasses(("background", "object"), (0, 1))


def read_mask(path: Path, *, coloured: bool = False) -> Array:
    """The stored values ``(*spatial)``, in the orientation in which :func:`~mixlab.data.readers.read_image` gives
    the image.

    Args:
        path: PNG, TIFF or GIF of integers or with a palette, or NIfTI.
        coloured: colours of RGB images and palettes, packed into integers, instead of numbers.

    Raises:
        OSError, ValueError: the file is broken, or holds something else than integers.
    """
    if readers.kind_of(path) == "nifti":
        return _whole(readers.read_nifti(path)[0])
    if readers.kind_of(path) == "dicom":
        raise ValueError("masks are PNG, TIFF or NIfTI, not DICOM")
    if path.name.lower().endswith((".jpg", ".jpeg")):
        raise ValueError("JPEG changes values; masks are PNG, TIFF or NIfTI")
    with Image.open(path) as opened:
        readers.one_page(opened)
        image = ImageOps.exif_transpose(opened)
        if coloured:
            return packed(np.asarray(image.convert("RGB")))
        if image.mode not in (*readers.GREY_MODES, "P"):
            raise ValueError(f"its pixels are colours ({image.mode}), and no class file says which class each is")
        return _whole(np.asarray(image.getchannel(0) if image.mode == "LA" else image))


def _whole(values: Array) -> Array:
    """The values as integers; NIfTI often stores them as floats."""
    if values.dtype.kind in "bui":
        return values
    whole = np.rint(values)
    if not np.isfinite(values).all() or (whole != values).any():
        raise ValueError("it has values that are no integers")
    return whole.astype(np.int64)


class FileMasks:
    """Index maps in files; headers are looked at when it is made.

    Args:
        paths: the files.
        names: what a user calls them, in errors.
        classes: what the stored values mean.
        instances: every value above 0 is class 1.

    Raises:
        UserError: files are broken; the message names them all.
    """

    def __init__(
        self, paths: Sequence[Path], names: Sequence[str], classes: MaskClasses, *, instances: bool = False
    ) -> None:
        self.paths = list(paths)
        self.classes = classes
        self.instances = instances
        self.shapes: Sequence[tuple[int, ...]] = [h.shape[1:] for h in read_headers(self.paths, names, read_mask)]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> Array:
        """Class indices ``(*spatial)``, uint8."""
        stored = read_mask(self.paths[index], coloured=self.classes.coloured)
        return (stored > 0).astype(np.uint8) if self.instances else self.classes.indices(stored)

    def digest(self, mask: Array) -> str:
        """Of the class indices, however they are stored."""
        return digest(mask)


class PlaneFiles:
    """Overlapping structures, a file each; every value above 0 is the structure.

    Args:
        paths: for each case a file for each structure, or None where a case has none.
        names: what a user calls the cases, in errors.

    Raises:
        UserError: files are broken, or those of a case differ in size; the message names them all.
    """

    def __init__(self, paths: Sequence[Sequence[Path | None]], names: Sequence[str]) -> None:
        self.paths = [list(case) for case in paths]
        flat = [(path, name) for case, name in zip(paths, names, strict=True) for path in case if path is not None]
        labels = [f"{name} ({path.parent.name})" for path, name in flat]
        headers = iter(read_headers([path for path, _ in flat], labels, read_mask))
        found = [{next(headers).shape[1:] for path in case if path is not None} for case in self.paths]
        odd = [f"{names[i]}: {len(sizes)} sizes" for i, sizes in enumerate(found) if len(sizes) != 1]
        if odd:
            raise bad_masks(odd, len(found))
        self.shapes: Sequence[tuple[int, ...]] = [sizes.pop() for sizes in found]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> Array:
        """``(K, *spatial)`` of 0 and 1, uint8."""
        blank = np.zeros(self.shapes[index], dtype=np.uint8)
        return np.stack([blank if path is None else _structure(path) for path in self.paths[index]])

    def digest(self, mask: Array) -> str:
        """Of the structures, however they are stored."""
        return digest(mask)


def _structure(path: Path) -> Array:
    # a GIF's palette is in any order, and 0 may be its white
    return (read_mask(path, coloured=path.suffix.lower() == ".gif") > 0).astype(np.uint8)


def values_of(paths: Sequence[Path], names: Sequence[str]) -> list[int]:
    """All values that mask files have, sorted.

    Raises:
        UserError: files are broken; the message names them all.
    """

    def look(path: Path) -> Array | Exception:
        try:
            return np.unique(read_mask(path))
        except Exception as error:  # decoders raise what they like; each failure is one line of the list
            return error

    with ThreadPoolExecutor(min(4, cpu_count() or 1)) as pool:
        found = list(pool.map(look, paths))
    failures = [
        f"{name}: {reason_of(e, p)}" for e, p, name in zip(found, paths, names, strict=True) if isinstance(e, Exception)
    ]
    if failures:
        raise bad_masks(failures, len(paths))
    return sorted({int(v) for values in found if not isinstance(values, Exception) for v in values})
