"""``decathlon:TaskXX``: slices and volumes, made on the spot and real ones."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mixlab.data import DataConfig, ImageData, at_hand, open_data
from mixlab.data.sources.decathlon import describe
from mixlab.errors import UserError
from tests.data.make import nifti, shared

AFFINE = np.diag([0.8, 0.9, 2.5, 1])


def task(root: Path, *, channels: int = 1, cases: int = 5) -> Path:
    """Volumes (x, y, z) of 6 x 7 x 4: the label is where y is at least 5."""
    folder = root / "Task09_Spleen"
    for i in range(cases):
        shape = (6, 7, 4) if channels == 1 else (6, 7, 4, channels)
        nifti(folder / f"imagesTr/spleen_{i}.nii.gz", np.random.default_rng(i).random(shape, np.float32), AFFINE)
        label = np.zeros((6, 7, 4), np.uint8)
        label[:, 5:, 1 : 3 + i % 2] = 1
        nifti(folder / f"labelsTr/spleen_{i}.nii.gz", label, AFFINE)
    pairs = [{k: f"./{k}sTr/spleen_{i}.nii.gz" for k in ("image", "label")} for i in range(cases)]
    about = {"name": "Spleen", "labels": {"0": "background", "1": "spleen"}, "training": pairs, "licence": "free"}
    (folder / "dataset.json").write_text(json.dumps(about))
    return folder


def opened(root: Path, name: str = "decathlon:Task09", **options: Any) -> ImageData:
    return open_data(DataConfig(name=name, root=root, **options))


@pytest.mark.parametrize(
    ("plane", "slices", "size", "spacing"),
    [
        ("", 4, (7, 6), (0.9, 0.8)),
        ("@axial", 4, (7, 6), (0.9, 0.8)),
        ("@coronal", 7, (4, 6), (2.5, 0.8)),
        ("@sagittal", 6, (4, 7), (2.5, 0.9)),
    ],
)
def test_slices(tmp_path: Path, plane: str, slices: int, size: tuple[int, int], spacing: tuple[float, float]) -> None:
    task(tmp_path)
    data = opened(tmp_path, f"decathlon:Task09{plane}")
    card = data.card
    assert (card.task, card.classes, card.background) == ("segmentation", ("background", "spleen"), 0)
    assert (card.image_size, card.spacing, card.licence) == (size, spacing, "free")
    assert sum(card.sizes.values()) == 5 * slices
    assert all(n % slices == 0 for n in card.sizes.values()), "cases are never divided"
    groups = [set(s.groups or []) for s in data.splits.values()]
    assert sum(map(len, groups)) == 5
    image, mask, _ = data.splits["train"][1]
    assert image.shape[1:] == mask.shape == size
    assert (card.empty_masks["train"] > 0) == (plane != "@sagittal")
    again = pickle.loads(pickle.dumps(data.splits["train"]))
    assert torch.equal(again[1][0], image)


def test_pictures_stand_upright(tmp_path: Path) -> None:
    task(tmp_path)
    data = opened(tmp_path)
    mask = next(m for s in data.splits.values() for m in s.targets if m.any())
    assert mask[:2].all(), "anterior (large y in RAS) comes first"
    assert not mask[2:].any()
    side = opened(tmp_path, "decathlon:Task09@sagittal").splits["train"].targets[0]
    assert np.flatnonzero(side.any(axis=1)).tolist() in ([1, 2], [0, 1, 2]), "superior (large z) comes first"
    assert np.flatnonzero(side.any(axis=0)).tolist() == [5, 6]


def test_the_same_voxels_in_every_plane(tmp_path: Path) -> None:
    task(tmp_path)
    counts = {plane: opened(tmp_path, f"decathlon:Task09@{plane}").card for plane in ("axial", "coronal", "3d")}
    assert len({c.class_counts["test"] for c in counts.values()}) == 1
    assert counts["3d"].image_size == (4, 7, 6)
    assert counts["3d"].spacing == (2.5, 0.9, 0.8)


def test_several_modalities(tmp_path: Path) -> None:
    task(tmp_path, channels=2)
    data = opened(tmp_path)
    assert data.card.channels == 2
    assert data.splits["train"][0][0].shape == (2, 7, 6)


def test_splits_of_ones_own_and_size(tmp_path: Path) -> None:
    folder = task(tmp_path)
    splits = {"train": ["spleen_0", "spleen_3"], "val": ["spleen_2"], "test": ["spleen_1", "spleen_4"]}
    (folder / "splits.json").write_text(json.dumps(splits))
    data = opened(folder, image_size=[14, 6])
    assert data.splits["val"].ids == [f"spleen_2/{z:03d}" for z in range(4)]
    assert data.card.spacing == (0.45, 0.8)
    splits["train"].append("spleen_9")
    (folder / "splits.json").write_text(json.dumps(splits))
    with pytest.raises(UserError, match="spleen_9: no such image"):
        opened(folder)


def broken_image(folder: Path) -> None:
    (folder / "imagesTr/spleen_2.nii.gz").write_bytes(b"no")


def other_size(folder: Path) -> None:
    nifti(folder / "labelsTr/spleen_2.nii.gz", np.zeros((6, 6, 4), np.uint8))


def other_depth(folder: Path) -> None:
    nifti(folder / "labelsTr/spleen_2.nii.gz", np.zeros((6, 7, 3), np.uint8))


def a_label_too_many(folder: Path) -> None:
    nifti(folder / "labelsTr/spleen_2.nii.gz", np.full((6, 7, 4), 2, np.uint8))


def missing(folder: Path) -> None:
    (folder / "labelsTr/spleen_2.nii.gz").unlink()


def no_labels(folder: Path) -> None:
    about = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**about, "labels": {}}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (broken_image, "1 of 5 broken .*\n  spleen_2"),
        (other_size, r"4 of 20 that differ \(spleen_2/000: image 7 x 6, mask 6 x 6"),
        (other_depth, "1 of 20 at fault:\n  spleen_2/003: its volume has 3 slices"),
        (a_label_too_many, "spleen_2/000: it has the value 2 outside the classes"),
        (missing, r"1 missing \(./labelsTr/spleen_2.nii.gz\)"),
        (no_labels, "no labels"),
    ],
)
def test_what_is_wrong(tmp_path: Path, spoil: Any, message: str) -> None:
    spoil(task(tmp_path))
    with pytest.raises(UserError, match=message):
        opened(tmp_path)


def test_absent(tmp_path: Path) -> None:
    assert not at_hand(DataConfig(name="decathlon:Task09", root=tmp_path))
    with pytest.raises(UserError, match=r"Task09_.*medicaldecathlon"):
        opened(tmp_path)
    task(tmp_path)
    assert at_hand(DataConfig(name="decathlon:Task09", root=tmp_path))
    assert at_hand(DataConfig(name="decathlon:task09_spleen@3d", root=tmp_path / "Task09_Spleen"))
    for name in ("decathlon:9", "decathlon:Task09@oblique"):
        with pytest.raises(UserError, match="Task and two digits"):
            opened(tmp_path, name)
    with pytest.raises(UserError, match="made from them"):
        describe("Task09")


def test_hippocampus() -> None:
    data = open_data(DataConfig(name="decathlon:Task04@sagittal", root=shared("task04_hippocampus"), image_size=32))
    assert data.card.classes == ("background", "Anterior", "Posterior")
    assert {name: len(set(s.groups or [])) for name, s in data.splits.items()} == {"train": 182, "val": 26, "test": 52}
    columns = np.sum([m == 1 for m in data.splits["val"].targets], axis=(0, 1))
    others = np.sum([m == 2 for m in data.splits["val"].targets], axis=(0, 1))
    place = np.arange(32)
    assert (columns * place).sum() / columns.sum() > (others * place).sum() / others.sum() + 5, (
        "anterior is to the right"
    )
