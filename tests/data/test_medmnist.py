"""``medmnist:NAME[@SIZE]``: every set's card, local files, and files that are not what they should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mixlab.data import DataConfig, ImageData, describe, list_datasets, open_data
from mixlab.data.sources.medmnist import SIZES, package_info, parse
from mixlab.errors import UserError
from tests.data.make import Array, medmnist_arrays, save_npz, shared

INFO = package_info()
SMALL = {"train": 12, "val": 4, "test": 6}


def opened(name: str, root: Path, **options: Any) -> ImageData:
    return open_data(DataConfig(name=f"medmnist:{name}", root=root, **options))


@pytest.mark.parametrize("flag", list(INFO))
def test_every_set_has_a_card(flag: str) -> None:
    dims = 3 if flag.endswith("3d") else 2
    for size in SIZES[dims]:
        card = describe(f"medmnist:{flag}@{size}")
        assert card.spatial_dims == dims
        assert card.image_size == (size,) * dims
        assert len(card.classes) == len(INFO[flag]["label"]) >= 2
        assert card.task == ("multilabel" if flag == "chestmnist" else "classification")
        assert card.channels in (1, 3)
        assert card.sizes == INFO[flag]["n_samples"]
        assert all(0 <= axis < dims for axis in card.flips)
        assert card.licence.startswith("CC BY")
        assert card.source.endswith(f"{parse(f'{flag}@{size}').suffix}.npz")
        assert card.splits == "official"
    assert f"medmnist:{flag}" in list_datasets()


def test_no_flips_unless_they_are_known_to_be_harmless() -> None:
    assert describe("medmnist:pathmnist").flips == (0, 1)
    for flag in ("chestmnist", "pneumoniamnist", "octmnist", "organamnist", "organmnist3d", "fracturemnist3d"):
        assert describe(f"medmnist:{flag}").flips == ()


def test_names_that_do_not_exist() -> None:
    with pytest.raises(UserError, match="'pneumoniamnist'"):
        describe("medmnist:pneumonia")
    with pytest.raises(UserError, match=r"one of \(28, 64, 128, 224\)"):
        describe("medmnist:bloodmnist@96")
    with pytest.raises(UserError, match=r"one of \(28, 64\)"):
        describe("medmnist:organmnist3d@224")
    with pytest.raises(UserError, match="one of"):
        describe("medmnist:bloodmnist@")


@pytest.mark.parametrize(
    ("name", "file", "shape"),
    [
        ("pneumoniamnist", "pneumoniamnist.npz", (28, 28)),
        ("pneumoniamnist@28", "medmnist/pneumoniamnist_28.npz", (28, 28)),
        ("breastmnist@64", "medmnist/breastmnist_64.npz", (64, 64)),
        ("retinamnist", "retinamnist.npz", (28, 28, 3)),
        ("nodulemnist3d", "nodulemnist3d.npz", (28, 28, 28)),
    ],
)
def test_local_files(tmp_path: Path, name: str, file: str, shape: tuple[int, ...]) -> None:
    arrays = medmnist_arrays(SMALL, size=shape, classes=len(INFO[parse(name).flag]["label"]))
    save_npz(tmp_path / file, arrays)
    data = opened(name, tmp_path)
    assert data.card.sizes == SMALL
    assert [e["kind"] for e in data.events][:2] == ["checksum", "split sizes"]
    image, target, _ = data.splits["val"][1]
    stored = arrays["val_images"][1]
    expected = np.moveaxis(stored, -1, 0) if shape[-1] == 3 else stored[None]
    assert torch.equal(image, torch.from_numpy(np.ascontiguousarray(expected)).float() / 255)
    assert target.dtype == torch.int64
    assert int(target) == arrays["val_labels"][1, 0]


def test_chestmnist_is_multilabel(tmp_path: Path) -> None:
    arrays = medmnist_arrays(SMALL, columns=14)
    save_npz(tmp_path / "chestmnist.npz", arrays)
    data = opened("chestmnist", tmp_path)
    _, target, _ = data.splits["train"][2]
    assert (target.dtype, target.shape) == (torch.float32, (14,))
    assert data.splits["train"].targets.shape == (12, 14)
    assert data.card.class_counts["train"] == tuple(arrays["train_labels"].sum(axis=0))
    fold = opened("chestmnist", tmp_path, folds=2, fold=0)
    assert len(fold.splits["train"]) + len(fold.splits["val"]) == 16
    with pytest.raises(UserError, match="train_per_class"):
        opened("chestmnist", tmp_path, train_per_class=2)


def test_labels_without_a_second_axis(tmp_path: Path) -> None:
    arrays = medmnist_arrays(SMALL)
    save_npz(tmp_path / "breastmnist.npz", {k: v.ravel() if "labels" in k else v for k, v in arrays.items()})
    assert opened("breastmnist", tmp_path).card.sizes == SMALL


def faulty(**changes: Array | None) -> dict[str, Array]:
    arrays = medmnist_arrays(SMALL)
    return {k: v for k, v in {**arrays, **changes}.items() if v is not None}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (faulty(val_labels=np.array([[0], [1], [7], [1]], dtype=np.uint8)), r"1 out of range \(val-000002 has 7\)"),
        (faulty(val_labels=None), "none of val_labels"),
        (faulty(test_labels=np.zeros((5, 1), dtype=np.uint8)), r"test_labels: expected integers \(6, 1\)"),
        (faulty(test_labels=np.zeros((6, 1))), r"test_labels: expected integers"),
        (faulty(train_images=np.zeros((12, 64, 64), dtype=np.uint8)), r"train_images: expected uint8 \(N, 28, 28\)"),
        (faulty(train_images=np.zeros((12, 28, 28), dtype=np.float32)), "train_images: expected uint8"),
        (
            faulty(val_images=np.zeros((0, 28, 28), dtype=np.uint8), val_labels=np.zeros((0, 1), dtype=np.uint8)),
            "at least one image",
        ),
    ],
)
def test_files_that_are_not_what_they_should_be(tmp_path: Path, arrays: dict[str, Array], message: str) -> None:
    save_npz(tmp_path / "breastmnist.npz", arrays)
    with pytest.raises(UserError, match=message):
        opened("breastmnist", tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "middle", "empty", "text", "pickle"])
def test_damaged_files(tmp_path: Path, damage: str) -> None:
    path = save_npz(tmp_path / "breastmnist.npz", medmnist_arrays(SMALL))
    whole = path.read_bytes()
    middle = len(whole) // 4
    content = {
        "truncated": whole[: len(whole) // 2],
        "middle": whole[:middle] + bytes(200) + whole[middle + 200 :],
        "empty": b"",
        "text": b"<html>404</html>",
        "pickle": b"",
    }[damage]
    path.write_bytes(content)
    if damage == "pickle":
        save_npz(path, {**medmnist_arrays(SMALL), "train_labels": np.array([{}] * 12, dtype=object)}, pickled=True)
    with pytest.raises(UserError, match=r"breastmnist\.npz: expected a readable npz file"):
        opened("breastmnist", tmp_path)


def test_a_missing_file_says_where_it_was_sought(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--data-root.*zenodo") as error:
        opened("bloodmnist@64", tmp_path)
    for place in (tmp_path / "bloodmnist_64.npz", tmp_path / "medmnist" / "bloodmnist_64.npz"):
        assert str(place) in str(error.value)


def test_a_failed_download_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_args: Any, root: str, **_more: Any) -> None:
        Path(root, "breastmnist.npz").write_bytes(b"half")
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", offline)
    with pytest.raises(UserError, match="the download failed"):
        opened("breastmnist", tmp_path / "new", download=True)
    assert not list((tmp_path / "new").iterdir())


def test_a_download_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetch(url: str, root: str, filename: str, md5: str) -> None:
        asked.append(url)
        save_npz(Path(root, filename), medmnist_arrays(SMALL, size=(64, 64)))

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fetch)
    first = opened("breastmnist@64", tmp_path, download=True)
    again = opened("breastmnist@64", tmp_path, download=True)
    assert len(asked) == 1
    assert asked[0].startswith(describe("medmnist:breastmnist@64").source)
    assert [p.name for p in tmp_path.iterdir()] == ["breastmnist_64.npz"]
    assert first.fingerprint == again.fingerprint


def test_breastmnist() -> None:
    data = opened("breastmnist", shared("medmnist"))
    assert data.card.sizes == {"train": 546, "val": 78, "test": 156}
    assert {e["kind"] for e in data.events} == {"duplicates"}, "the file is the official one"
    assert data.card.splits == "official"
    np.testing.assert_allclose(data.card.mean, 0.3276, atol=1e-3)


def test_pneumoniamnist() -> None:
    data = opened("pneumoniamnist", shared("medmnist"), image_size=32, channels=3)
    assert data.card.class_counts == {"train": (1214, 3494), "val": (135, 389), "test": (234, 390)}
    assert [e["kind"] for e in data.events] == ["checksum", "channels", "duplicates"]
    assert "8 of 524 val images also occur in train" in data.events[-1]["message"]
    assert sum("also occur" in leak for leak in data.card.leaks) == 1
    assert data.splits["train"][0][0].shape == (3, 32, 32)


def test_a_subset_of_pneumoniamnist_in_folds() -> None:
    data = opened("pneumoniamnist", shared(""), folds=5, fold=4, train_per_class=20)
    assert data.card.class_counts["train"] == (20, 20)
    assert data.card.sizes["test"] == 624
    assert data.card.sizes["val"] in (1046, 1047)
