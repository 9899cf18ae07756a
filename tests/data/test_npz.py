"""``npz:PATH``: what a file of arrays may hold, and how files that hold something else are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mixlab.data import DataConfig, ImageData, at_hand, list_datasets, open_data
from mixlab.errors import UserError
from mixlab.studies.grid import slug
from mixlab.studies.run_config import hashed_data
from tests.data.make import Array, medmnist_arrays, picture, save_npz, shared

SIZES = {"train": 12, "val": 4, "test": 6}


def opened(path: Path, arrays: dict[str, Array], **options: Any) -> ImageData:
    save_npz(path, arrays)
    return open_data(DataConfig(name=f"npz:{path}", **options))


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((8, 9), (1, 8, 9)),
        ((8, 9, 1), (1, 8, 9)),
        ((8, 9, 3), (3, 8, 9)),
        ((6, 8, 9), (1, 6, 8, 9)),
        ((6, 8, 9, 2), (2, 6, 8, 9)),
    ],
)
def test_images_and_volumes_with_and_without_channels(
    tmp_path: Path, size: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    arrays = medmnist_arrays(SIZES, size=size, classes=3)
    data = opened(tmp_path / "mine.npz", arrays)
    card = data.card
    assert (card.name, card.task, card.classes, card.sizes) == (
        "npz:mine.npz",
        "classification",
        ("0", "1", "2"),
        SIZES,
    )
    assert (card.channels, *card.image_size) == shape  # type: ignore[misc]
    image, target, _ = data.splits["val"][1]
    stored = arrays["val_images"][1].reshape(*shape[1:], shape[0])
    assert torch.equal(image, torch.from_numpy(np.moveaxis(stored, -1, 0).copy()).float() / 255)
    assert int(target) == arrays["val_labels"][1, 0]
    assert data.splits["val"].ids[1] == "val-000001"


@pytest.mark.parametrize(("dtype", "scale"), [(np.uint16, 65535), (np.float32, 1)])
def test_types_of_images(tmp_path: Path, dtype: Any, scale: float) -> None:
    arrays = medmnist_arrays(SIZES, size=(8, 9))
    for split in SIZES:
        pixels = picture(1, arrays[f"{split}_images"].shape, dtype=np.uint16)
        arrays[f"{split}_images"] = (pixels / 255).astype(dtype) if dtype is np.float32 else pixels
    image, *_ = opened(tmp_path / "mine.npz", arrays).splits["train"][0]
    np.testing.assert_allclose(image[0].numpy(), arrays["train_images"][0] / scale, rtol=1e-6)


def test_names_of_classes_and_images(tmp_path: Path) -> None:
    names = {f"{split}_ids": np.array([f"{split}/{i}.png" for i in range(n)]) for split, n in SIZES.items()}
    arrays = {**medmnist_arrays(SIZES, size=(8, 8)), **names, "class_names": np.array(["no", "yes"])}
    arrays |= {k: v.ravel() for k, v in arrays.items() if k.endswith("labels")}
    data = opened(tmp_path / "mine.npz", arrays)
    assert data.card.classes == ("no", "yes")
    assert data.card.class_counts == {"train": (6, 6), "val": (2, 2), "test": (3, 3)}
    assert data.splits["test"].ids == names["test_ids"].tolist()


def test_several_columns_are_findings(tmp_path: Path) -> None:
    arrays = medmnist_arrays(SIZES, size=(8, 8), columns=5)
    arrays["class_names"] = np.array(list("abcde"))
    data = opened(tmp_path / "mine.npz", arrays)
    assert (data.card.task, data.card.classes) == ("multilabel", tuple("abcde"))
    assert data.splits["train"][2][1].tolist() == arrays["train_labels"][2].tolist()


def test_the_path_starts_from_the_root_and_counts_nowhere(tmp_path: Path) -> None:
    save_npz(tmp_path / "sub" / "mine.npz", medmnist_arrays(SIZES, size=(8, 8)))
    config = DataConfig(name="npz:sub/mine.npz", root=tmp_path)
    absent = DataConfig(name="npz:sub/other.npz", root=tmp_path)
    assert (at_hand(config), at_hand(absent)) == (True, False)
    here, there = open_data(config), open_data(DataConfig(name=f"npz:{tmp_path / 'sub' / 'mine.npz'}"))
    assert here.fingerprint == there.fingerprint
    assert hashed_data(config) == {"name": "npz"}
    assert slug("npz:mednist/mednist_subset.npz") == "mednist_subset"
    assert "npz:PATH" in list_datasets()
    with pytest.raises(UserError, match=r"npz:sub/other.npz: expected an existing .npz file"):
        open_data(absent)
    with pytest.raises(UserError, match="npz:PATH with a path"):
        open_data(DataConfig(name="npz:"))


def without(name: str) -> dict[str, Array]:
    return {k: v for k, v in medmnist_arrays(SIZES, size=(8, 8)).items() if k != name}


def changed(**arrays: Any) -> dict[str, Array]:
    return {**medmnist_arrays(SIZES, size=(8, 8)), **{k: np.asarray(v) for k, v in arrays.items()}}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (without("test_labels"), "none of test_labels"),
        (changed(val_images=picture(0, (4, 8, 9))), r"val_images: .*of one size in all splits, got \(4, 8, 9\)"),
        (changed(val_images=np.zeros((4, 8, 8))), "val_images: expected one of uint8, uint16, float32, got 'float64'"),
        (changed(val_images=np.full((4, 8, 8), 2, np.float32)), "numbers from 0 to 1, got 2 to 2"),
        (changed(val_images=np.full((4, 8, 8), np.nan, np.float32)), "numbers from 0 to 1, got nan"),
        (changed(train_labels=np.zeros(12)), r"train_labels: expected integers \(12, 1\), got float64"),
        (changed(val_labels=np.zeros(3, int)), r"val_labels: expected integers \(4, 1\)"),
        (changed(val_labels=np.zeros((4, 2), int)), r"val_labels: expected integers \(4, 1\)"),
        (changed(train_labels=np.zeros((12, 1, 1), int)), r"train_labels: expected \(N,\), \(N, 1\) or \(N, K\)"),
        (changed(val_labels=[0, 1, -1, 0]), "val-000002 has -1"),
        (changed(class_names=["a", "b"], val_labels=[0, 1, 2, 0]), "val-000002 has 2"),
        (changed(class_names=["a", "a"]), "a list of different texts"),
        (changed(class_names=[1, 2]), "a list of different texts"),
        (changed(val_ids=list("abcd")), "train_ids: expected 12 names, as of the other splits, got none"),
        (
            changed(train_ids=list("abcdefghijkl"), val_ids=list("mnop"), test_ids=list("aqrstu")),
            "each name once, got twice: a",
        ),
    ],
)
def test_files_that_are_not_what_they_should_be(tmp_path: Path, arrays: dict[str, Array], message: str) -> None:
    with pytest.raises(UserError, match=message):
        opened(tmp_path / "mine.npz", arrays)


def test_findings_need_a_name_each_and_are_0_or_1(tmp_path: Path) -> None:
    arrays = medmnist_arrays(SIZES, size=(8, 8), columns=3)
    with pytest.raises(UserError, match="3 names, one a column"):
        opened(tmp_path / "names.npz", {**arrays, "class_names": np.array(["a", "b"])})
    with pytest.raises(UserError, match="values from 0 to 1, got 12 out of range"):
        opened(tmp_path / "labels.npz", {**arrays, "train_labels": np.full((12, 3), 2)})


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    arrays = {**medmnist_arrays(SIZES, size=(8, 8)), "class_names": np.array(["a", None], dtype=object)}
    save_npz(path, arrays, pickled=True)
    assert at_hand(DataConfig(name=f"npz:{path}"))
    with pytest.raises(UserError, match=r"a readable npz file, got .*pickle.*saving it again"):
        open_data(DataConfig(name=f"npz:{path}"))


def test_mednist() -> None:
    data = open_data(DataConfig(name="npz:mednist_subset.npz", root=shared("mednist")))
    assert data.card.classes == ("AbdomenCT", "BreastMRI", "CXR", "ChestCT", "Hand", "HeadCT")
    assert data.card.sizes == {"train": 3600, "val": 600, "test": 1200}
    assert data.card.image_size == (64, 64)
    assert [e["message"] for e in data.events if e["kind"] == "duplicates"]  # the set's own: 2 validation images
