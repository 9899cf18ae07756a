"""Small data sets made on the spot: image folders, npz files, volumes."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
Array = NDArray[Any]


def shared(path: str) -> Path:
    """A file or folder of the shared data; the test is skipped where it is not there."""
    place = SHARED / path
    if not place.exists():
        pytest.skip(f"the shared data {path} are not on this machine")
    return place


def picture(seed: int, size: tuple[int, ...] = (12, 10), *, top: int = 256, dtype: Any = np.uint8) -> Array:
    return np.random.default_rng(seed).integers(0, top, size).astype(dtype)


def save(path: Path, pixels: Array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def image_folder(
    root: Path, counts: dict[str, int], *, size: tuple[int, ...] = (12, 10), suffix: str = ".png", first: int = 0
) -> Path:
    """``root/CLASS/NN.png``; keys may be ``train/cat``."""
    seed = first
    for name, count in counts.items():
        for i in range(count):
            save(root / name / f"{i:02d}{suffix}", picture(seed, size))
            seed += 1
        (root / name).mkdir(parents=True, exist_ok=True)
    return root


def medmnist_arrays(
    sizes: dict[str, int], *, classes: int = 2, size: tuple[int, ...] = (28, 28), columns: int = 1
) -> dict[str, Array]:
    """The arrays of a MedMNIST file."""
    arrays = {}
    for k, (split, count) in enumerate(sizes.items()):
        arrays[f"{split}_images"] = picture(k, (count, *size))
        labels = np.arange(count * columns).reshape(count, columns)
        arrays[f"{split}_labels"] = (labels % (2 if columns > 1 else classes)).astype(np.uint8)
    return arrays


def save_npz(path: Path, arrays: dict[str, Array], *, pickled: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=pickled, **arrays)
    return path


def table(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def nifti(path: Path, volume: Array, affine: Array | None = None) -> Path:
    nibabel = pytest.importorskip("nibabel")
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4) if affine is None else affine), path)
    return path


def dicom(path: Path, pixels: Array, *, photometric: str = "MONOCHROME2", **fields: Any) -> Path:
    """A secondary-capture file with 16-bit grey or 8-bit RGB pixels."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = UID("1.2.3.4")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = SecondaryCaptureImageStorage, "1.2.3.4", "OT"
    data.Rows, data.Columns = pixels.shape[-2:] if pixels.shape[-1] != 3 else pixels.shape[:2]
    colour = pixels.shape[-1] == 3
    data.SamplesPerPixel, data.PhotometricInterpretation = (3, "RGB") if colour else (1, photometric)
    bits = 8 if pixels.dtype == np.uint8 else 16
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = bits, bits, bits - 1, 0
    if colour:
        data.PlanarConfiguration = 0
    for name, value in fields.items():
        setattr(data, name, value)
    data.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def discs(seed: int, size: tuple[int, int], classes: int = 2) -> Array:
    """A label map with a square of each class but 0."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, dtype=np.uint8)
    for label in range(1, classes):
        y, x = (int(rng.integers(0, n - 4)) for n in size)
        mask[y : y + 4, x : x + 4] = label
    return mask


def pairs_folder(
    root: Path, count: int = 8, *, size: tuple[int, int] = (20, 16), classes: int = 2, place: str = ""
) -> Path:
    """``root/images/NN.png`` and ``root/masks/NN.png`` with classes 0 to K-1; ``place`` is a split above the two."""
    seed = len(list(root.rglob("*.png")))
    for i in range(count):
        save(root / place / "images" / f"{i:02d}.png", picture(seed + i, size))
        save(root / place / "masks" / f"{i:02d}.png", discs(seed + i, size, classes))
    return root
