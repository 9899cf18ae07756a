"""Predicted masks as files that lie over their images, pixel for pixel.

* NIfTI ``case.nii``: ``case.nii.gz`` of uint8 class numbers; of overlapping structures a volume of 0 and 1 for each,
  along a fourth axis. ``case.json`` beside it names the classes or the volumes.
* Any other image, ``case.tif``: ``case.png`` of class numbers with a palette; of overlapping structures
  ``STRUCTURE/case.png`` of 0 and 255, as a data set's ``masks`` folder has them.

A NIfTI mask has the image's affine, axes and zooms, in the order in which the file stores them. A PNG has the image's
width and height as a viewer shows them, that is with the EXIF orientation applied, as the reader does; its text chunk
``classes`` names the classes in JSON.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mixlab.data import readers
from mixlab.data.card import DataCard, structures
from mixlab.data.images import Array
from mixlab.data.sources.pairs import stem
from mixlab.errors import Quoted, expected

NAMED_AT_MOST = 20
HUES = ("e69f00", "56b4e9", "009e73", "f0e442", "0072b2", "d55e00", "cc79a7")
"""Okabe and Ito's colours, which people with any colour vision can tell apart."""
GEOMETRY = (
    "pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y",
    "qoffset_z", "srow_x", "srow_y", "srow_z",
)  # fmt: skip
"""Fields of a NIfTI header that say where voxels lie; the others speak of intensities, or of the person."""


def colour(number: int) -> tuple[int, int, int]:
    """The colour of a class, (red, green, blue): black for 0, then seven hues, then lighter and darker ones of them.

    Args:
        number: 0 to 255; each has another colour.
    """
    if number == 0:
        return 0, 0, 0
    turn, hue = divmod(number - 1, len(HUES))
    # Shades by bisection, so that the first ones lie far apart; never all of white or black, where hues end.
    part = 0.8 * int(f"{(turn + 1) // 2:06b}"[::-1], 2) / 64
    target = 255 if turn % 2 else 0
    red, green, blue = (round(value + part * (target - value)) for value in bytes.fromhex(HUES[hue]))
    return red, green, blue


def count_pixels(mask: Array, card: DataCard) -> list[int]:
    """Pixels of each structure in a mask ``(*size)`` of class numbers, or ``(K, *size)`` of overlapping structures."""
    if card.overlapping:
        return [int(plane.sum(dtype=np.int64)) for plane in mask]
    found = np.bincount(mask.ravel(), minlength=len(card.classes))
    return [int(found[number]) for number in structures(card)]


def mask_place(image: Path, folder: Path, card: DataCard) -> Path:
    """Where the mask of an image goes: a file in ``folder``, or ``folder`` itself with a folder for each structure."""
    name = stem(image.name)
    if readers.kind_of(image) == "nifti":
        return folder / f"{name}.nii.gz"
    return folder if card.overlapping else folder / f"{name}.png"


def mask_paths(image: Path, folder: Path, card: DataCard) -> list[Path]:
    """The files that :func:`mask_files` makes, without making them."""
    place = mask_place(image, folder, card)
    if readers.kind_of(image) == "nifti":
        return [place, folder / f"{stem(image.name)}.json"]
    if not card.overlapping:
        return [place]
    return [place / structure / f"{stem(image.name)}.png" for structure in _file_names(card.classes)]


def check_places(images: Sequence[Path], folder: Path, card: DataCard, *, overwrite: bool = False) -> None:
    """Look at what would be written, before anything is computed.

    Args:
        images: the image files.
        folder: where the masks go; need not exist.
        card: the card of the data that the model was trained on.
        overwrite: masks that exist are replaced.

    Raises:
        UserError: ``folder`` cannot be one, two images would have one mask file, a mask would replace an image, a mask
            exists and ``overwrite`` is false, or structures whose names differ in signs that file names lack.
    """
    where = "masks"
    if folder.exists() and not folder.is_dir():
        raise expected(where, "a folder to write to", str(folder), "another --output")
    owners: dict[str, int] = {}
    clashes, existing, blocked = [], [], []
    inputs = {image.resolve() for image in images}
    for number, image in enumerate(images):
        for path in mask_paths(image, folder, card):
            # some file systems do not tell a from A
            other = owners.setdefault(str(path).casefold(), number)
            if other != number:
                clashes.append(f"{images[other]} and {image}: {path}")
                break
            if path.resolve() in inputs:
                raise expected(where, "another place than the images'", str(path), "another --output")
            if path.is_dir() or (path.parent.exists() and not path.parent.is_dir()):
                blocked.append(str(path))
            elif os.path.lexists(path):
                existing.append(str(path))
    if clashes:
        raise expected(where, "one file name for each image", _listed(clashes), "one call for each folder of images")
    if blocked:
        raise expected(where, "names that are free for files", _listed(blocked), "another --output")
    if existing and not overwrite:
        raise expected(where, "files that do not exist yet", _listed(existing), "--overwrite, or another --output")


def mask_files(image: Path, mask: Array, folder: Path, card: DataCard) -> dict[Path, bytes]:
    """The mask of an image as files: their paths and contents.

    Args:
        image: the image file.
        mask: uint8 at the image's own pixels, as :func:`~mixlab.data.readers.read_image` presents them: ``(*size)``
            class numbers, or ``(K, *size)`` of 0 and 1 if the card is overlapping.
        folder: where the files go.
        card: names the classes.
    """
    paths = mask_paths(image, folder, card)
    numbers = {name: number for number, name in enumerate(card.classes)}
    if readers.kind_of(image) == "nifti":
        told = {"volumes": list(card.classes)} if card.overlapping else {"classes": numbers}
        text = json.dumps(told, indent=2, ensure_ascii=False) + "\n"
        return dict(zip(paths, (_nifti(image, mask, card.overlapping), text.encode()), strict=True))
    if not card.overlapping:
        return {paths[0]: _png(mask, json.dumps(numbers, ensure_ascii=False), palette=True)}
    named = zip(paths, mask, card.classes, strict=True)
    return {
        path: _png(plane * np.uint8(255), json.dumps({name: 255}, ensure_ascii=False)) for path, plane, name in named
    }


def _png(pixels: Array, classes: str, *, palette: bool = False) -> bytes:
    image = Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8))
    if palette:
        image.putpalette([value for number in range(256) for value in colour(number)])
    text = PngInfo()
    text.add_text("classes", classes)
    file = io.BytesIO()
    image.save(file, "PNG", pnginfo=text)
    return file.getvalue()


def _nifti(path: Path, mask: Array, overlapping: bool) -> bytes:
    """A gzipped NIfTI file with the geometry of the one at ``path``, to the bit."""
    stored = readers.load_nifti(path)
    header = type(stored.header)()
    header.set_data_dtype(np.uint8)
    for name in GEOMETRY:
        header[name] = stored.header[name]
    if overlapping:
        values = _fourth_axis([readers.as_stored(plane, stored) for plane in mask])
        header["pixdim"][4] = 1  # what was a step of time, or nothing, counts structures
        header["xyzt_units"] = int(header["xyzt_units"]) & 7  # the units of space alone
    else:
        values = readers.as_stored(mask, stored)
        header.set_intent("label")
    image: Any = type(stored)(values.astype(np.uint8), stored.affine, header)
    # without a time in the file, equal masks are equal files
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


def _fourth_axis(volumes: Sequence[Array]) -> Array:
    shape = volumes[0].shape[:3]
    return np.stack([volume.reshape((*shape, *(1,) * (3 - len(shape)))) for volume in volumes], axis=3)


def _file_names(names: Sequence[str]) -> list[str]:
    """Names as file systems take them.

    Raises:
        UserError: two become one.
    """
    safe = [re.sub(r"[^\w.+=@,() -]+", "_", name).strip(". ") or "_" for name in names]
    if len({name.casefold() for name in safe}) < len(safe):
        raise expected("structures", "names that differ in letters and digits", list(names))
    return safe


def _listed(lines: Sequence[str]) -> Quoted:
    more = [f"... and {len(lines) - NAMED_AT_MOST} more"] if len(lines) > NAMED_AT_MOST else []
    return Quoted("\n  ".join([f"{len(lines)}:", *lines[:NAMED_AT_MOST], *more]))
