"""Reading one image file, and looking at its header.

Intensities become [0, 1] like this:

* 8- and 16-bit integers of PNG, JPEG and TIFF: divided by the largest value of their type (255, 65535);
* everything else (32-bit integers, floats, NIfTI, DICOM): the image's own 0.5 and 99.5 percentiles become 0 and 1, and
  what lies outside is clipped. A CT in Hounsfield units thus loses its absolute scale.

Photographs are turned as their EXIF orientation says; palettes become RGB; an alpha channel is dropped. A NIfTI volume
is turned to the nearest RAS orientation and its axes are (D, H, W) = (z, y, x); a DICOM file is one image, MONOCHROME1
is inverted.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from mixlab.data.images import Array
from mixlab.errors import UserError, expected

PILLOW = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
NIFTI = (".nii", ".nii.gz")
DICOM = (".dcm", ".dicom")
SUFFIXES = (*PILLOW, *NIFTI, *DICOM)
LOW, HIGH = 0.5, 99.5
GREY_MODES = {"1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L"}

_WARNINGS = Lock()  # files are read in threads, and the filters of warnings belong to all of them


@dataclass(frozen=True)
class Header:
    """What a file says of itself."""

    shape: tuple[int, ...]
    """``(C, *spatial)``"""
    note: str = ""
    """What reading it will lose, if anything."""
    spacing: tuple[float, ...] | None = None
    """Millimetres from pixel to pixel, in (D, H, W) order; known of NIfTI files."""


def kind_of(path: Path) -> str | None:
    """``pillow``, ``nifti``, ``dicom``, or None for a file that is no image."""
    name = path.name.lower()
    for kind, suffixes in (("pillow", PILLOW), ("nifti", NIFTI), ("dicom", DICOM)):
        if name.endswith(suffixes):
            return kind
    return None


def needs_medical(where: str) -> UserError:
    """The error for a medical format without the extra."""
    return expected(where, "nibabel and pydicom to read NIfTI and DICOM", None, "pip install 'mixlab[medical]'")


@functools.cache
def medical() -> Any:
    """MONAI's module of image readers.

    Raises:
        UserError: the extra ``medical`` is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside MONAI at import are none of the user's business
            import nibabel  # noqa: F401
            import pydicom  # noqa: F401
            from monai.data import image_reader
    except ImportError as error:
        raise needs_medical("reading NIfTI and DICOM") from error
    return image_reader


def read_header(path: Path) -> Header:
    """Shape of the image as :func:`read_image` will give it."""
    kind = kind_of(path)
    if kind == "nifti":
        size, spacing = _nifti_grid(path)
        return Header((1, *size), spacing=spacing)
    if kind == "dicom":
        return _dicom_header(path)
    with Image.open(path) as image:
        one_page(image)
        width, height = image.size
        if image.getexif().get(0x0112, 1) in (5, 6, 7, 8):  # stored lying on its side
            width, height = height, width
        return Header((1 if image.mode in GREY_MODES else 3, height, width), _loss(image))


def read_image(path: Path) -> Array:
    """The decoded image ``(C, *spatial)``: uint8, uint16, or float32 in [0, 1].

    Raises:
        OSError, ValueError: the file is broken, or is no image that can be trained on.
    """
    kind = kind_of(path)
    if kind == "nifti":
        return percentile_scaled(read_nifti(path))
    if kind == "dicom":
        return percentile_scaled(_read_dicom(path))
    return _read_pillow(path)


def percentile_scaled(values: Array) -> Array:
    """Float32 in [0, 1]: the image's 0.5 and 99.5 percentiles become 0 and 1; a constant image becomes 0."""
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it has values that are not finite")
    low, high = np.percentile(values, (LOW, HIGH))
    if high <= low:  # nearly all pixels are equal: use the whole range
        low, high = values.min(), values.max()
    if high <= low:
        return np.zeros(values.shape, dtype=np.float32)
    return np.clip((values - low) / (high - low), 0, 1).astype(np.float32)


def one_page(image: Image.Image) -> None:
    """Raise ValueError for a file of several images."""
    pages = getattr(image, "n_frames", 1)
    if pages > 1:
        raise ValueError(f"it has {pages} pages; save each as an image, or the stack as NIfTI")


def _loss(image: Image.Image) -> str:
    if image.mode in ("RGBA", "LA", "PA"):
        return "alpha channel dropped"
    tiles = getattr(image, "tile", None)
    raw_mode = str(tiles[0][3]) if tiles else ""
    if image.mode == "RGB" and "16" in raw_mode:
        return "16-bit colour read at 8 bits"
    return "32-bit values scaled by percentiles" if image.mode in ("I", "F") else ""


def _read_pillow(path: Path) -> Array:
    with Image.open(path) as opened:
        one_page(opened)
        image = ImageOps.exif_transpose(opened)
        if image.mode in ("I", "F"):
            return percentile_scaled(np.asarray(image))[None]
        if image.mode.startswith("I;16"):
            return np.asarray(image).astype(np.uint16)[None]
        if image.mode in GREY_MODES:
            return np.asarray(image.convert("L"))[None]
        return np.ascontiguousarray(np.moveaxis(np.asarray(image.convert("RGB")), -1, 0))


def load_nifti(path: Path) -> Any:
    """The file as nibabel's image, its voxels not read yet."""
    medical()
    import nibabel

    return nibabel.load(path)


def load_canonical(path: Path) -> Any:
    """The file as nibabel's image, turned to RAS: every reader of NIfTI starts here. :func:`as_stored` undoes it."""
    stored = load_nifti(path)
    import nibabel

    return nibabel.as_closest_canonical(stored)


def as_stored(values: Array, stored: Any) -> Array:
    """Voxels of the grid that :func:`read_nifti` gives, in the order of the file.

    Args:
        values: ``(z, y, x)``, or ``(y, x)`` of a flat image.
        stored: the file, from :func:`load_nifti`.

    Returns:
        ``(i, j, k, ...)``: the shape of the file, without a fourth axis of channels.
    """
    from nibabel import orientations

    turn = orientations.io_orientation(stored.affine)
    shape = [n for axis, n in enumerate(stored.shape) if axis < 3 or n == 1]
    turned = list(shape)
    for axis, (target, _) in enumerate(turn[: len(shape)]):
        turned[int(target)] = shape[axis]
    ras = values.T.reshape(turned)
    identity = orientations.axcodes2ornt("RAS")
    if (turn == identity).all():  # flat files have two axes, which nibabel turns in no case
        return ras
    return np.ascontiguousarray(orientations.apply_orientation(ras, orientations.ornt_transform(identity, turn)))


def _nifti_grid(path: Path) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Size and spacing in (z, y, x) order."""
    stored = load_canonical(path)
    size = _flat_size(stored.shape)
    return size, tuple(round(float(s), 6) for s in reversed(stored.header.get_zooms()[: len(size)]))


def _flat_size(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(z, y, x) of a NIfTI's (x, y, z, ...); axes of length one at the end are dropped."""
    kept = list(shape)
    while len(kept) > 2 and kept[-1] == 1:
        kept.pop()
    if not 2 <= len(kept) <= 3:
        raise ValueError(f"it has the shape {shape}; only 2D and 3D images can be read")
    return tuple(int(n) for n in reversed(kept))


def read_nifti(path: Path) -> Array:
    """The stored values ``(1, *spatial)``, turned to RAS, in (z, y, x) order."""
    values = np.asarray(load_canonical(path).dataobj)
    return values.T.reshape(1, *_flat_size(values.shape))


def _dicom_header(path: Path) -> Header:
    medical()
    import pydicom

    data = pydicom.dcmread(path, stop_before_pixels=True)
    frames = int(data.get("NumberOfFrames", 1) or 1)
    if frames > 1:
        raise ValueError(f"it has {frames} frames; one DICOM file is one image here, save the volume as NIfTI")
    channels = int(data.get("SamplesPerPixel", 1))
    note = "MONOCHROME1 inverted" if data.get("PhotometricInterpretation") == "MONOCHROME1" else ""
    return Header((channels, int(data.Rows), int(data.Columns)), note)


def _read_dicom(path: Path) -> Array:
    header = read_header(path)
    channels, height, width = header.shape
    reader = medical().PydicomReader()
    with _WARNINGS, warnings.catch_warnings():
        # a plain X-ray has no position in space, which MONAI regrets; nothing here needs it
        warnings.filterwarnings("ignore", message="PydicomReader: ImageOrientationPatient")
        loaded = reader.get_data(reader.read(str(path)))[0]
    values = np.asarray(loaded, dtype=np.float64).reshape(width, height, channels)  # MONAI's arrays are (x, y, ...)
    image = values.transpose(2, 1, 0)
    return -image if header.note.startswith("MONOCHROME1") else image
