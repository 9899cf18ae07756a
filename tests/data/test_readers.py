"""Every file format, at every depth, and what is said of files that cannot be read."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mixlab.data.readers import medical, percentile_scaled, read_header, read_image
from mixlab.errors import UserError
from tests.data.make import dicom, nifti, picture, save


def same_shape(path: Path) -> Any:
    image = read_image(path)
    assert image.shape == read_header(path).shape
    return image


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".PNG"])
@pytest.mark.parametrize("top", [256, 65536])
def test_lossless_grey_keeps_every_integer(tmp_path: Path, suffix: str, top: int) -> None:
    pixels = picture(1, top=top, dtype=np.uint8 if top == 256 else np.uint16)
    image = same_shape(save(tmp_path / f"a{suffix}", pixels))
    assert image.dtype == pixels.dtype
    np.testing.assert_array_equal(image, pixels[None])


def test_colour_has_channels_first(tmp_path: Path) -> None:
    pixels = picture(2, (9, 7, 3))
    np.testing.assert_array_equal(same_shape(save(tmp_path / "a.png", pixels)), pixels.transpose(2, 0, 1))


def test_jpeg(tmp_path: Path) -> None:
    ramp = np.repeat(np.arange(0, 240, 15, dtype=np.uint8)[None], 16, axis=0)
    path = tmp_path / "a.jpg"
    Image.fromarray(ramp).save(path, quality=100)
    assert np.abs(same_shape(path)[0].astype(int) - ramp).max() <= 2


def test_exif_orientation_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    image = Image.fromarray(picture(3, (8, 20)))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif)
    assert same_shape(path).shape == (1, 20, 8)


@pytest.mark.parametrize(("mode", "channels"), [("P", 3), ("RGBA", 3), ("LA", 1), ("1", 1), ("CMYK", 3)])
def test_other_modes(tmp_path: Path, mode: str, channels: int) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.fromarray(picture(4, (6, 5, 3))).convert("L" if mode == "LA" else "RGB").convert(mode).save(path)
    assert same_shape(path).shape == (channels, 6, 5)
    assert ("alpha" in read_header(path).note) == (mode in ("RGBA", "LA"))


def test_float_tiff_is_scaled_by_percentiles(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.linspace(-5, 900, 120, dtype=np.float32).reshape(12, 10)).save(path)
    image = same_shape(path)
    assert image.dtype == np.float32
    assert (image.min(), image.max()) == (0, 1)
    assert "percentiles" in read_header(path).note


def test_pages_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pages = [Image.fromarray(picture(i)) for i in range(3)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match="3 pages"):
        read_header(path)


def test_percentiles() -> None:
    values = np.arange(1001.0)
    scaled = percentile_scaled(values)
    assert scaled[5] == pytest.approx(0, abs=1e-6)
    assert scaled[995] == pytest.approx(1, abs=1e-6)
    assert scaled[500] == pytest.approx(0.5, abs=1e-6)
    np.testing.assert_array_equal(percentile_scaled(np.full(4, 7.0)), np.zeros(4))
    sparse = np.zeros(1000)
    sparse[3] = 4.0
    assert percentile_scaled(sparse).max() == 1, "a few bright pixels are not lost"
    with pytest.raises(ValueError, match="finite"):
        percentile_scaled(np.array([0.0, np.nan]))


def test_nifti_axes_and_orientation(tmp_path: Path) -> None:
    pytest.importorskip("monai")
    volume = picture(5, (4, 5, 6), dtype=np.int16)
    plain = same_shape(nifti(tmp_path / "a.nii.gz", volume))
    assert plain.shape == (1, 6, 5, 4)
    np.testing.assert_allclose(plain[0], percentile_scaled(volume).T)
    mirrored = nifti(tmp_path / "b.nii", volume[::-1], np.diag([-1.0, 1, 1, 1]))
    np.testing.assert_allclose(same_shape(mirrored), plain)
    turned = nifti(tmp_path / "c.nii", volume.transpose(1, 0, 2), np.eye(4)[:, [1, 0, 2, 3]])
    np.testing.assert_allclose(same_shape(turned), plain)


def test_flat_nifti_is_an_image(tmp_path: Path) -> None:
    pytest.importorskip("monai")
    assert same_shape(nifti(tmp_path / "a.nii", picture(6, (4, 5, 1)).astype(np.float32))).shape == (1, 5, 4)


def test_nifti_of_four_axes_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("monai")
    path = nifti(tmp_path / "a.nii", picture(7, (3, 4, 5, 2)))
    with pytest.raises(ValueError, match="2D and 3D"):
        read_header(path)


def test_dicom(tmp_path: Path) -> None:
    pytest.importorskip("monai")
    pixels = picture(8, (6, 9), top=4096, dtype=np.uint16)
    grey = same_shape(dicom(tmp_path / "a.dcm", pixels))
    np.testing.assert_allclose(grey[0], percentile_scaled(pixels), atol=1e-6)
    slope = same_shape(dicom(tmp_path / "b.dcm", pixels, RescaleSlope="2", RescaleIntercept="-1024"))
    np.testing.assert_allclose(slope, grey, atol=1e-6)
    inverted = dicom(tmp_path / "c.dcm", pixels, photometric="MONOCHROME1")
    np.testing.assert_allclose(same_shape(inverted), 1 - grey, atol=1e-6)
    assert "inverted" in read_header(inverted).note
    colour = picture(9, (6, 9, 3))
    np.testing.assert_allclose(
        same_shape(dicom(tmp_path / "d.dcm", colour)), percentile_scaled(colour.transpose(2, 0, 1)), atol=1e-6
    )


def test_dicom_frames_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("monai")
    path = dicom(tmp_path / "a.dcm", picture(8, (3, 6, 9)), NumberOfFrames="3")
    with pytest.raises(ValueError, match="3 frames"):
        read_header(path)


def test_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__
    medical.cache_clear()

    def without_pydicom(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("pydicom"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_pydicom)
    with pytest.raises(UserError, match=r"mixlab\[medical\]"):
        read_header(tmp_path / "a.nii.gz")
