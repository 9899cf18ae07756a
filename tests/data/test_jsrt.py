"""``jsrt``: files in the authors' layout, made small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mixlab.data import DataConfig, ImageData, at_hand, open_data
from mixlab.data.sources import jsrt
from mixlab.errors import UserError
from tests.data.make import save

SIDE = 32
NAMES = ("JPCLN001", "JPCLN002", "JPCLN003", "JPCNN001", "JPCNN002", "JPCNN003", "JPCNN005")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    assert jsrt.SIDE == 2048, "the authors' size; the tests' files are smaller"
    monkeypatch.setattr(jsrt, "SIDE", SIDE)


def density(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4096, (SIDE, SIDE)).astype(">u2")


def files(root: Path, images: str = "All247images", masks: str = "scratch") -> Path:
    (root / images).mkdir(parents=True)
    for i, name in enumerate(NAMES):
        (root / images / f"{name}.IMG").write_bytes(density(i).tobytes())
        fold = "fold1" if int(name[-3:]) % 2 else "fold2"
        for k, structure in enumerate(jsrt.STRUCTURES):
            pixels = np.zeros((SIDE // 2, SIDE // 2), np.uint8)
            pixels[k : k + 5, i : i + 3] = 255
            save(root / masks / fold / "masks" / structure / f"{name}.gif", pixels)
    return root


def opened(root: Path, **options: Any) -> ImageData:
    return open_data(DataConfig(name="jsrt", root=root, **options))


@pytest.mark.parametrize("places", [("All247images", "scratch"), ("Nodule154images", "scr/scratch"), (".", ".")])
def test_lungs_heart_and_clavicles(tmp_path: Path, places: tuple[str, str]) -> None:
    data = opened(files(tmp_path / "root", *places))
    card = data.card
    assert (card.classes, card.overlapping, card.background) == (jsrt.STRUCTURES, True, None)
    assert (card.image_size, card.spacing) == ((16, 16), (0.35, 0.35))
    assert card.sizes == {"train": 4, "val": 1, "test": 2}
    assert data.splits["test"].ids == ["JPCLN002", "JPCNN002"]
    assert "fold1 (odd numbers) training" in card.splits
    image, mask, _ = data.splits["test"][0]
    assert (mask.shape, mask.dtype) == ((5, 16, 16), torch.float32)
    assert mask.sum(dim=(1, 2)).tolist() == [15] * 5
    assert mask[2, 2:7, 1:4].all()
    light = (4095 - density(1).astype(float)) / 4095
    np.testing.assert_allclose(image[0], light.reshape(16, 2, 16, 2).mean(axis=(1, 3)), atol=1e-6)
    assert any("7 images, not the official 247" in e["message"] for e in data.events)


def test_size(tmp_path: Path) -> None:
    data = opened(files(tmp_path), image_size=4)
    assert data.card.spacing == (1.4, 1.4)
    assert data.splits["train"][0][1].shape == (5, 4, 4)


def no_image(root: Path) -> None:
    (root / "All247images" / "JPCLN001.IMG").unlink()


def no_heart(root: Path) -> None:
    (root / "scratch/fold1/masks/heart/JPCLN001.gif").unlink()


def cut_short(root: Path) -> None:
    (root / "All247images" / "JPCLN001.IMG").write_bytes(b"0" * 100)


def lowest_byte_first(root: Path) -> None:
    (root / "All247images" / "JPCLN001.IMG").write_bytes(density(0).astype("<u2").tobytes())


def in_both_folds(root: Path) -> None:
    save(root / "scratch/fold2/masks/heart/JPCLN001.gif", np.zeros((16, 16), np.uint8))


def other_size(root: Path) -> None:
    for structure in jsrt.STRUCTURES:
        save(root / "scratch/fold1/masks" / structure / "JPCLN001.gif", np.zeros((32, 32), np.uint8))


def one_of_other_size(root: Path) -> None:
    save(root / "scratch/fold1/masks/heart/JPCLN001.gif", np.zeros((32, 32), np.uint8))


def broken(root: Path) -> None:
    (root / "scratch/fold1/masks/heart/JPCLN001.gif").write_bytes(b"GIF")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_image, "mask JPCLN001 without image"),
        (no_heart, "image JPCLN001 without heart"),
        (cut_short, "JPCLN001: 100 bytes, not 2048"),
        (lowest_byte_first, r"JPCLN001: it has the value \d+; 12 bits"),
        (in_both_folds, "JPCLN001 in fold1 and fold2"),
        (other_size, r"\(JPCLN001: image 16 x 16, mask 32 x 32\)"),
        (one_of_other_size, "JPCLN001: 2 sizes"),
        (broken, r"JPCLN001 \(heart\): no image"),
    ],
)
def test_what_is_wrong(tmp_path: Path, spoil: Any, message: str) -> None:
    spoil(files(tmp_path))
    with pytest.raises(UserError, match=message):
        opened(tmp_path)


def test_absent(tmp_path: Path) -> None:
    config = DataConfig(name="jsrt", root=tmp_path)
    assert not at_hand(config)
    with pytest.raises(UserError, match=r"no .IMG file and no fold1/masks.*db\.jsrt\.or\.jp"):
        open_data(config)
    files(tmp_path)
    assert at_hand(config)
