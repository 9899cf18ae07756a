"""Masks lie over their images, pixel for pixel, and our own readers read back what was written."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mixlab.data import DataCard, DataConfig, open_data
from mixlab.data.mask_classes import read_classes
from mixlab.data.mask_files import PlaneFiles, read_mask
from mixlab.data.mask_writing import colour, count_pixels, mask_files, mask_place, structures
from mixlab.data.readers import read_header, read_image
from mixlab.data.slices import read_grid
from mixlab.errors import UserError
from tests.data.make import Array, dicom, nifti, picture, save

CARD = DataCard(name="small", task="segmentation", classes=("background", "left lung", "Herz ♥"), channels=1,
                spatial_dims=2, background=0)  # fmt: skip
OVERLAPPING = replace(CARD, classes=("lung", "heart", "rib/left"), overlapping=True, background=None)


def write(image: Path, mask: Array, folder: Path, card: DataCard = CARD) -> list[Path]:
    """The files of a mask, written as a run does."""
    files = mask_files(image, mask, folder, card)
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return list(files)


def marked(values: Array) -> Array:
    """A mask that tells every pixel's place from its image: 1 where the image is bright, 2 where it is brightest."""
    low, high = np.quantile(values, (0.5, 0.8))
    return ((values > low).astype(np.uint8) + (values > high)).astype(np.uint8)


def oblique() -> Array:
    """An affine of unequal zooms that turns about all three axes, nearest to LPS."""
    a, b = 0.2, 0.3
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag([-0.7, -1.2, 3.0])
    affine[:3, 3] = 11.5, -7.25, 30
    return affine


def axes(codes: str) -> Array:
    """The affine of a volume whose axes run towards these letters, with unequal zooms."""
    nibabel = pytest.importorskip("nibabel")
    turn = nibabel.orientations.axcodes2ornt(codes)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, ((target, sign), zoom) in enumerate(zip(turn, (0.5, 2.0, 3.25), strict=True)):
        affine[int(target), axis] = sign * zoom
    affine[:3, 3] = 5, -6, 7
    return affine


AFFINES = [*("RAS", "LPS", "PIR", "ASL", "SRP", "IPL"), "oblique"]


@pytest.mark.parametrize("orientation", AFFINES)
@pytest.mark.parametrize("codes", [(1, 1), (0, 2), (4, 0), (0, 0)], ids=str)
def test_a_volume_s_mask_lies_over_its_voxels(tmp_path: Path, orientation: str, codes: tuple[int, int]) -> None:
    nibabel = pytest.importorskip("nibabel")
    volume = picture(1, (5, 6, 7), top=3000, dtype=np.int16)
    stored = nibabel.Nifti1Image(volume, oblique() if orientation == "oblique" else axes(orientation))
    stored.header.set_xyzt_units("mm", "sec")
    stored.header["descrip"] = b"name of a person"
    stored.set_qform(stored.affine, codes[0])
    stored.set_sform(stored.affine if codes[1] else None, codes[1])
    image = tmp_path / "in" / "case.nii"
    image.parent.mkdir()
    nibabel.save(stored, image)
    presented = read_image(image)[0]
    path, told = write(image, marked(presented), tmp_path / "out")
    assert (path.name, told.name) == ("case.nii.gz", "case.json")
    found, was = nibabel.load(path), nibabel.load(image)
    assert found.get_data_dtype() == np.uint8
    # the voxels themselves: where the stored volume is bright, whatever its axes are
    np.testing.assert_array_equal(np.asarray(found.dataobj), marked(volume))
    np.testing.assert_array_equal(found.affine, was.affine)
    for field in ("pixdim", "qform_code", "sform_code", "srow_x", "quatern_b", "xyzt_units"):
        np.testing.assert_array_equal(found.header[field], was.header[field])
    assert (int(found.header["qform_code"]), int(found.header["sform_code"])) == codes
    assert (found.header["descrip"] == b"").all(), "nothing that a header says of a person goes on"
    np.testing.assert_array_equal(read_mask(path), marked(presented))


@pytest.mark.parametrize("shape", [(5, 6, 7, 1), (5, 6, 1), (5, 6)], ids=str)
def test_axes_of_length_one_stay(tmp_path: Path, shape: tuple[int, ...]) -> None:
    nibabel = pytest.importorskip("nibabel")
    affine = np.diag([1.0, 1, 1, 1]) if len(shape) == 2 else axes("LPS")
    image = nifti(tmp_path / "a.nii.gz", picture(2, shape), affine)
    presented = read_image(image)[0]
    path, _ = write(image, marked(presented), tmp_path / "out")
    found = nibabel.load(path)
    assert found.shape == shape
    np.testing.assert_array_equal(np.asarray(found.dataobj), marked(np.asarray(nibabel.load(image).dataobj)))
    np.testing.assert_array_equal(found.header["pixdim"], nibabel.load(image).header["pixdim"])


def test_a_volume_of_channels_gets_a_mask_of_its_grid(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    image = nifti(tmp_path / "a.nii.gz", picture(2, (5, 6, 7, 4)), axes("PIR"))
    path, _ = write(image, np.zeros(read_grid(image).shape, np.uint8), tmp_path / "out")
    assert nibabel.load(path).shape == (5, 6, 7)
    np.testing.assert_array_equal(nibabel.load(path).affine, axes("PIR"))


def test_nifti_2_and_the_other_byte_order(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    volume = picture(2, (5, 6, 7), dtype=np.int16)
    nibabel.save(nibabel.Nifti2Image(volume, axes("ASL")), tmp_path / "two.nii")
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, axes("ASL"), header), tmp_path / "big.nii")
    for name in ("two", "big"):
        path, _ = write(tmp_path / f"{name}.nii", marked(read_image(tmp_path / f"{name}.nii")[0]), tmp_path / "out")
        found = nibabel.load(path)
        assert found.__class__ is nibabel.load(tmp_path / f"{name}.nii").__class__
        np.testing.assert_array_equal(np.asarray(found.dataobj), marked(volume))
        np.testing.assert_allclose(found.affine, axes("ASL"))


def test_overlapping_structures_of_a_volume_are_a_fourth_axis(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    volume = picture(3, (5, 6, 7))
    stored = nibabel.Nifti1Image(volume, oblique())
    stored.header["pixdim"][4] = 2.5
    stored.header.set_xyzt_units("mm", "sec")
    nibabel.save(stored, image := tmp_path / "a.nii")
    presented = read_image(image)[0]
    levels = (0.2, 0.5, 0.9)
    path, told = write(image, np.stack([presented > level for level in levels]).astype(np.uint8), tmp_path, OVERLAPPING)
    found = nibabel.load(path)
    assert found.shape == (5, 6, 7, 3)
    low, high = np.percentile(volume, (0.5, 99.5))
    for place, level in enumerate(levels):
        np.testing.assert_array_equal(found.dataobj[..., place], np.clip((volume - low) / (high - low), 0, 1) > level)
    np.testing.assert_array_equal(found.affine, nibabel.load(image).affine)
    assert (found.header["pixdim"][4], found.header.get_xyzt_units()) == (1, ("mm", "unknown")), (
        "the fourth axis is no time"
    )
    assert json.loads(told.read_text()) == {"volumes": ["lung", "heart", "rib/left"]}
    flat = nifti(tmp_path / "flat.nii", picture(3, (5, 6)))
    path, _ = write(flat, np.ones((3, 6, 5), np.uint8), tmp_path, OVERLAPPING)
    assert nibabel.load(path).shape == (5, 6, 1, 3)


@pytest.mark.parametrize(
    "pixels",
    [
        picture(1, (217, 181)),
        picture(1, (181, 217), top=65536, dtype=np.uint16),
        picture(1, (21, 18, 3)),
        picture(1, (3, 1), top=2) > 0,
    ],
    ids=["odd grey", "16 bits", "RGB", "bits"],
)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_an_image_s_mask_has_its_width_and_height(tmp_path: Path, pixels: Array, suffix: str) -> None:
    image = save(tmp_path / "in" / f"a.b{suffix}", pixels)
    mask = marked(read_image(image)[0])
    (path,) = write(image, mask, tmp_path / "out")
    assert path == mask_place(image, tmp_path / "out", CARD) == tmp_path / "out" / "a.b.png"
    with Image.open(path) as found, Image.open(image) as was:
        assert (found.mode, found.size) == ("P", was.size)
        assert json.loads(found.info["classes"]) == {"background": 0, "left lung": 1, "Herz ♥": 2}
        shown = np.asarray(found.convert("RGB"))
    np.testing.assert_array_equal(shown, np.array([colour(n) for n in range(3)])[mask])
    np.testing.assert_array_equal(read_mask(path), mask)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_s_mask_lies_as_the_photograph_is_seen(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = tmp_path / "photo.jpg"
    Image.fromarray(np.kron(picture(4, (6, 4)), np.ones((8, 8), np.uint8))).save(image, exif=exif, quality=100)
    presented = read_image(image)[0]
    (path,) = write(image, marked(presented), tmp_path / "out")
    assert read_header(path).shape[1:] == read_header(image).shape[1:] == presented.shape
    np.testing.assert_array_equal(read_mask(path), marked(presented))


def test_a_dicom_file_s_mask_is_a_png_of_its_rows_and_columns(tmp_path: Path) -> None:
    pixels = picture(8, (6, 9), top=4096, dtype=np.uint16)
    image = dicom(tmp_path / "a.dcm", pixels)
    (path,) = write(image, marked(read_image(image)[0]), tmp_path / "out")
    np.testing.assert_array_equal(read_mask(path), marked(pixels))


def test_overlapping_structures_of_an_image_are_a_file_each(tmp_path: Path) -> None:
    image = save(tmp_path / "case.png", picture(5, (7, 5)))
    planes = picture(6, (3, 7, 5), top=2)
    paths = write(image, planes, tmp_path / "out", OVERLAPPING)
    assert paths == [tmp_path / "out" / name / "case.png" for name in ("lung", "heart", "rib_left")]
    with Image.open(paths[2]) as found:
        assert (found.mode, found.getextrema()) == ("L", (0, 255))
        assert json.loads(found.info["classes"]) == {"rib/left": 255}
    np.testing.assert_array_equal(PlaneFiles([paths], ["case"]).read(0), planes)
    with pytest.raises(UserError, match="structures: expected names that differ"):
        write(image, planes, tmp_path / "out", replace(OVERLAPPING, classes=("a/b", "a:b", "c")))


def test_the_folder_reader_reads_the_masks_back(tmp_path: Path) -> None:
    """Predictions for images can be the masks of a data set, with their classes."""
    card, truth = replace(CARD, classes=("background", "class 1", "class 2")), {}
    for i in range(8):
        image = save(tmp_path / "images" / f"{i}.png", picture(i, (20 + i, 16)))
        truth[image.name] = marked(read_image(image)[0])
        write(image, truth[image.name], tmp_path / "masks", card)
    check_back(tmp_path, truth, card)


def test_the_folder_reader_reads_overlapping_structures_back(tmp_path: Path) -> None:
    card, truth = replace(OVERLAPPING, classes=("heart", "lung")), {}
    for i in range(8):
        image = save(tmp_path / "images" / f"{i}.png", picture(i, (7, 5)))
        truth[image.name] = picture(100 + i, (2, 7, 5), top=2)
        write(image, truth[image.name], tmp_path / "masks", card)
    check_back(tmp_path, truth, card)


def test_the_folder_reader_reads_volumes_back(tmp_path: Path) -> None:
    truth: dict[str, Any] = {}
    for i, orientation in enumerate(AFFINES):
        affine = oblique() if orientation == "oblique" else axes(orientation)
        image = nifti(tmp_path / "images" / f"{i}.nii", picture(i, (5, 6, 7)), affine)
        truth[image.name] = marked(read_image(image)[0])
        write(image, truth[image.name], tmp_path / "masks")
    shutil.copyfile(tmp_path / "masks" / "0.json", tmp_path / "index.json")
    found = read_classes(tmp_path)
    assert found is not None
    assert (found.names, found.values) == (CARD.classes, (0, 1, 2))
    check_back(tmp_path, truth, CARD)


def check_back(root: Path, truth: dict[str, Array], card: DataCard) -> None:
    data = open_data(DataConfig(name=f"folder:{root}"))
    assert data.card.classes == card.classes
    found = {i: mask for split in data.splits.values() for i, mask in zip(split.ids, split.targets, strict=True)}
    assert found.keys() == truth.keys()
    for name, mask in truth.items():
        np.testing.assert_array_equal(found[name], mask)


def test_colours_are_apart() -> None:
    colours = np.array([colour(n) for n in range(256)])
    assert len(np.unique(colours, axis=0)) == 256
    assert tuple(colours[0]) == (0, 0, 0)
    first = colours[:15].astype(float)
    assert min(np.linalg.norm(a - b) for i, a in enumerate(first) for b in first[:i]) > 30


def test_pixels_are_counted_for_each_structure() -> None:
    mask = np.array([[0, 1, 1], [2, 2, 2]], dtype=np.uint8)
    assert count_pixels(mask, CARD) == [2, 3]
    assert structures(replace(CARD, background=1)) == [0, 2]
    assert count_pixels(mask, replace(CARD, background=1)) == [1, 3]
    assert count_pixels(mask, replace(CARD, background=None)) == [1, 2, 3]
    assert count_pixels(np.stack([mask > 0, mask > 1, mask > 2]).astype(np.uint8), OVERLAPPING) == [5, 3, 0]
