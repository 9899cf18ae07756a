"""The sets that need no network: ``digits``, ``mni152``; and ``imagewoof``, which needs its files."""

from __future__ import annotations

import io
import tarfile
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mixlab.data import DataConfig, describe, open_data
from mixlab.data.sources.imagewoof import BREEDS
from mixlab.data.sources.mni152 import BLOCKS, CUBE, corners
from mixlab.errors import UserError
from tests.data.make import image_folder

DIGITS = "98a754e382c2a5e1"


def test_digits() -> None:
    data = open_data(DataConfig())
    assert data.card.sizes == {"train": 899, "val": 359, "test": 539}
    assert min(min(c) for c in data.card.class_counts.values()) >= 34
    assert data.card.flips == ()
    assert "writers" in data.card.leaks[0]
    image, target, index = data.splits["train"][5]
    assert (image.shape, image.dtype, index) == ((1, 8, 8), torch.float32, 5)
    assert image.max() == 1
    assert int(target) == data.splits["train"].targets[5]
    assert data.fingerprint.startswith(DIGITS), "the split of seed 0 must never change"
    assert open_data(DataConfig(split_seed=3)).fingerprint != data.fingerprint
    larger = open_data(DataConfig(image_size=28, train_per_class=20))
    assert larger.card.image_size == (28, 28)
    assert larger.card.sizes["train"] == 200


def test_digits_card_agrees_with_the_data() -> None:
    card, opened = describe("digits"), open_data(DataConfig()).card
    for name in ("task", "classes", "channels", "spatial_dims", "image_size", "flips", "licence", "leaks"):
        assert getattr(card, name) == getattr(opened, name)


def test_mni152_slices() -> None:
    data = open_data(DataConfig(name="mni152"))
    card = data.card
    assert (card.task, card.channels, card.spatial_dims, card.image_size) == ("segmentation", 1, 2, (160, 160))
    assert card.classes == ("background", "grey matter", "white matter")
    assert "ONE averaged brain" in card.notes[0]
    assert card.splits.startswith("spatial")
    image, mask, _ = data.splits["train"][40]
    assert (mask.dtype, mask.shape) == (torch.int64, (160, 160))
    levels = [image[0][mask == k].mean() for k in range(3)]
    assert levels[0] < levels[1] < levels[2], "white matter is the brightest in a T1"
    assert image[0, :20].sum() < image[0, -60:-40].sum(), "the top of the head comes first"
    for split in data.splits.values():
        assert all(set(np.unique(m)) == {0, 1, 2} for m in split.targets[8:-8])
    smaller = open_data(DataConfig(name="mni152", image_size=[80, 64]))
    image, mask, _ = smaller.splits["test"][10]
    assert image.shape[1:] == mask.shape == (80, 64)
    assert set(mask.unique().tolist()) <= {0, 1, 2}
    slabs = data.splits["test"].groups
    assert slabs is not None
    assert [slabs.count(name) for name in dict.fromkeys(slabs)] == [10, 10, 10, 6]
    assert card.plane is None, "files are scaled otherwise: predictions of volumes would not see what training saw"
    with pytest.raises(UserError, match="no folds for mni152"):
        open_data(DataConfig(name="mni152", folds=3, fold=0))


def test_mni152_cubes() -> None:
    data = open_data(DataConfig(name="mni152-3d"))
    assert data.card.image_size == (32, 32, 32)
    assert min(data.card.sizes.values()) >= 9
    image, mask, _ = data.splits["val"][0]
    assert image.shape == (1, 32, 32, 32)
    assert mask.shape == (32, 32, 32)


def test_mni152_splits_are_at_least_ten_millimetres_apart() -> None:
    taken: dict[str, set[int]] = {name: set() for name in BLOCKS}
    for split, (_, y, _) in corners():
        taken[split] |= set(range(y, y + CUBE))
    for places in (taken, {name: set(range(*block)) for name, block in BLOCKS.items()}):
        for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
            assert min(abs(a - b) for a in places[first] for b in places[second]) > 10


def woof(root: Path) -> Path:
    counts = {f"train/{name}": 8 for name in BREEDS} | {f"val/{name}": 2 for name in BREEDS}
    return image_folder(root, counts, size=(12, 10, 3))


@pytest.mark.parametrize("place", ["imagewoof2", "imagewoof2-160", "."])
def test_imagewoof(tmp_path: Path, place: str) -> None:
    woof(tmp_path / place)
    data = open_data(DataConfig(name="imagewoof", root=tmp_path, image_size=16))
    assert data.card.sizes == {"train": 70, "val": 10, "test": 20}
    assert data.card.classes == tuple(BREEDS.values())
    assert data.card.flips == (1,)
    assert "validation split used as test" in data.card.splits
    assert [e["kind"] for e in data.events] == ["split sizes", "split"]
    assert all(i.startswith("val/") for i in data.splits["test"].ids)


def test_imagewoof_that_is_something_else(tmp_path: Path) -> None:
    image_folder(tmp_path, {"train/cat": 4, "train/dog": 4, "val/cat": 2, "val/dog": 2})
    with pytest.raises(UserError, match=r"ten breeds.*cat"):
        open_data(DataConfig(name="imagewoof", root=tmp_path))
    with pytest.raises(UserError, match="one of full, 320, 160"):
        describe("imagewoof:200")
    assert len(describe("imagewoof:160").classes) == 10


def test_imagewoof_is_fetched_on_request_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"none in .*imagewoof2-160.*imagewoof2-160\.tgz"):
        open_data(DataConfig(name="imagewoof:160", root=tmp_path))

    def offline(url: str, timeout: float) -> Any:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(UserError, match=r"to fetch https://.*no network"):
        open_data(DataConfig(name="imagewoof:160", root=tmp_path, download=True))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("whole", [True, False])
def test_imagewoof_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    woof(tmp_path / "source" / "imagewoof2-160")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(tmp_path / "source" / "imagewoof2-160", "imagewoof2-160")
    content = packed.getvalue() if whole else packed.getvalue()[:3000]
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: io.BytesIO(content))
    config = DataConfig(name="imagewoof:160", root=tmp_path / "root", download=True)
    if whole:
        assert open_data(config).card.sizes["test"] == 20
    else:
        with pytest.raises(UserError, match="to fetch"):
            open_data(config)
    left = [p.name for p in (tmp_path / "root").iterdir()]
    assert left == (["imagewoof2-160"] if whole else [])
