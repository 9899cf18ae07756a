"""``folder:PATH`` with image and mask pairs: layouts, values, sizes, and what is wrong with a folder."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mixlab.data import DataConfig, ImageData, check_pairing, open_data
from mixlab.errors import UserError
from tests.data.make import discs, nifti, pairs_folder, picture, save, shared


def opened(path: Path, **options: Any) -> ImageData:
    return open_data(DataConfig(name=f"folder:{path}", **options))


def test_pairs_without_class_file_or_splits(tmp_path: Path) -> None:
    data = opened(pairs_folder(tmp_path, 20, classes=3))
    card = data.card
    assert (card.task, card.classes) == ("segmentation", ("background", "class 1", "class 2"))
    assert (card.background, card.ignore_label, card.overlapping, card.spacing) == (0, None, False, None)
    assert card.sizes == {"train": 14, "val": 3, "test": 3}
    assert card.splits.startswith("seeded: 15%")
    assert card.image_size == (20, 16)
    assert {e["kind"] for e in data.events} == {"masks", "split"}
    image, mask, index = data.splits["test"][1]
    assert (image.shape, image.dtype) == ((1, 20, 16), torch.float32)
    assert (mask.shape, mask.dtype, index) == ((20, 16), torch.int64, 1)
    seed = int(Path(data.splits["test"].ids[1]).stem)
    np.testing.assert_array_equal(mask, discs(seed, (20, 16), 3))
    counts = np.sum([np.bincount(m.ravel(), minlength=3) for m in data.splits["test"].targets], axis=0)
    assert card.class_counts["test"] == tuple(counts)


def test_sizes_may_differ_until_one_is_asked_for(tmp_path: Path) -> None:
    pairs_folder(tmp_path, 6)
    for name, size in (("brain", (217, 181)), ("square", (250, 250))):
        save(tmp_path / "images" / f"{name}.png", picture(1, size))
        save(tmp_path / "masks" / f"{name}.png", discs(1, size))
    data = opened(tmp_path)
    assert data.card.image_size is None
    sizes = {i: (s[j][0].shape[1:], s[j][1].shape) for s in data.splits.values() for j, i in enumerate(s.ids)}
    assert sizes["brain.png"] == ((217, 181), (217, 181))
    assert sizes["square.png"] == ((250, 250), (250, 250))
    assert {s for split in data.splits.values() for s in split.sizes} == {(217, 181), (250, 250), (20, 16)}
    small = opened(tmp_path, image_size=[32, 24])
    assert small.card.image_size == (32, 24)
    image, mask, _ = small.splits["train"][0]
    assert image.shape[1:] == mask.shape == (32, 24)
    assert set(mask.unique().tolist()) <= {0, 1}
    assert small.fingerprint == data.fingerprint, "size is an option, not content"


def test_given_splits(tmp_path: Path) -> None:
    for place, count in (("train", 5), ("valid", 2), ("test", 3)):
        pairs_folder(tmp_path / "levels", count, place=place)
    data = opened(tmp_path / "levels")
    assert data.card.sizes == {"train": 5, "val": 2, "test": 3}
    assert data.splits["val"].ids == ["valid/00.png", "valid/01.png"]
    pairs_folder(tmp_path / "listed", 5)
    splits = {"train": ["00", "03"], "val": ["04"], "test": ["01.png", "02"]}
    for file, content in (("index.json", {"splits": splits}), ("splits.json", splits)):
        (tmp_path / "listed" / file).write_text(json.dumps(content))
        data = opened(tmp_path / "listed")
        assert data.splits["test"].ids == ["01.png", "02.png"]
        assert data.card.splits == "given"
        (tmp_path / "listed" / file).unlink()


def test_groups_are_never_divided(tmp_path: Path) -> None:
    pairs_folder(tmp_path, 20)
    groups = {f"{i:02d}": f"patient {i // 4}" for i in range(20)}
    (tmp_path / "index.json").write_text(json.dumps({"groups": groups}))
    splits = opened(tmp_path).splits
    found = [{*(s.groups or [])} for s in splits.values()]
    assert sum(map(len, found)) == 5
    fold = opened(tmp_path, folds=3, fold=1)
    assert not {*(fold.splits["train"].groups or [])} & {*(fold.splits["val"].groups or [])}
    del groups["07"]
    (tmp_path / "index.json").write_text(json.dumps({"groups": groups}))
    with pytest.raises(UserError, match=r"none for \['07'\]"):
        opened(tmp_path)


def saved_as(kind: str, path: Path, mask: np.ndarray) -> None:
    """A map of 0, 1 and 2 in one of the ways that masks are stored."""
    from PIL import Image

    if kind == "sixteen bits":
        save(path.with_suffix(".tif"), mask.astype(np.uint16) * 300)
    elif kind == "palette":
        image = Image.fromarray(mask, mode=None).convert("P")
        image = Image.frombytes("P", image.size, mask.tobytes())
        image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
        image.save(path.with_suffix(".png"))
    elif kind == "colour":
        save(path.with_suffix(".png"), np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)[mask])
    else:
        nifti(path.with_suffix(".nii.gz"), mask.T.astype(np.float32))


COLOURS = {"background": "#000000", "lung": [255, 0, 0], "heart": "#0000ff"}


@pytest.mark.parametrize(
    ("kind", "classes"),
    [
        ("sixteen bits", {"background": 0, "lung": 300, "heart": 600}),
        ("palette", ["background", "lung", "heart"]),
        ("palette", COLOURS),
        ("colour", COLOURS),
        ("colour", "background: #000000\nlung: 255 0 0\nheart: #0000FF\n"),
        ("nifti", "background\nlung\nheart"),
    ],
)
def test_ways_to_store_masks(tmp_path: Path, kind: str, classes: Any) -> None:
    prints = set()
    for name in ("plain", "other"):
        for i in range(6):
            save(tmp_path / name / "images" / f"{i}.png", picture(i, (20, 16)))
            place = tmp_path / name / "masks" / f"{i}"
            place.parent.mkdir(parents=True, exist_ok=True)
            if name == "plain":
                save(place.with_suffix(".png"), discs(i, (20, 16), 3))
            else:
                saved_as(kind, place, discs(i, (20, 16), 3))
    (tmp_path / "plain" / "classes.txt").write_text("background\nlung\nheart")
    file = "classes.txt" if isinstance(classes, str) else "classes.json"
    (tmp_path / "other" / file).write_text(classes if isinstance(classes, str) else json.dumps(classes))
    for name in ("plain", "other"):
        data = opened(tmp_path / name)
        assert data.card.classes == ("background", "lung", "heart")
        prints.add(data.fingerprint)
    assert len(prints) == 1, "content counts, not how it is stored"


def test_ignored_pixels(tmp_path: Path) -> None:
    pairs_folder(tmp_path, 6, classes=3)
    for i in range(6):
        mask = discs(i, (20, 16), 3)
        mask[:2] = 200
        save(tmp_path / "masks" / f"{i:02d}.png", mask)
    (tmp_path / "classes.json").write_text(json.dumps({"ignore": 200, "background": 0, "a": 1, "b": 2}))
    data = opened(tmp_path)
    assert data.card.ignore_label == 255
    assert data.card.classes == ("background", "a", "b")
    assert data.card.ignored_pixels == {"train": 4 * 32, "val": 32, "test": 32}
    assert sum(data.card.class_counts["val"]) == 18 * 16
    assert (data.splits["train"][0][1][:2] == 255).all()


def test_instances_on_request(tmp_path: Path) -> None:
    pairs_folder(tmp_path, 6)
    for i in range(6):
        save(tmp_path / "masks" / f"{i:02d}.png", (discs(i, (20, 16), 9).astype(np.uint16) * 40))
    with pytest.raises(UserError, match=r"0, 40, 80, .*try data\.instances"):
        opened(tmp_path)
    data = opened(tmp_path, instances=True)
    assert data.card.classes == ("background", "object")
    assert set(np.unique(data.splits["train"].targets[0])) == {0, 1}
    (tmp_path / "classes.txt").write_text("background\nnucleus")
    assert opened(tmp_path, instances=True).card.classes == ("background", "nucleus")
    (tmp_path / "classes.txt").write_text("background\nnucleus\ncell")
    with pytest.raises(UserError, match="no class file, or background and one class"):
        opened(tmp_path, instances=True)
    with pytest.raises(UserError, match="a folder with images and masks"):
        opened(tmp_path / "masks", instances=True)
    with pytest.raises(UserError, match="a folder of images and masks"):
        open_data(DataConfig(name="digits", instances=True))


def test_structures_that_overlap(tmp_path: Path) -> None:
    for i in range(6):
        save(tmp_path / "images" / f"{i}.png", picture(i, (20, 16)))
        for structure in ("heart", "lung"):
            if (i, structure) != (3, "heart"):
                save(tmp_path / "masks" / structure / f"{i}.png", discs(i, (20, 16)) * 255)
    data = opened(tmp_path)
    card = data.card
    assert (card.overlapping, card.classes, card.background) == (True, ("heart", "lung"), None)
    _, mask, _ = data.splits["train"][0]
    assert (mask.shape, mask.dtype) == ((2, 20, 16), torch.float32)
    assert torch.equal(mask[0], mask[1])
    assert sum(c[1] for c in card.class_counts.values()) == 6 * 16
    assert sum(c[0] for c in card.class_counts.values()) == 5 * 16
    assert "1 of 6 images have no file in masks/heart" in data.events[0]["message"]
    assert opened(tmp_path, image_size=8).splits["train"][0][1].shape == (2, 8, 8)
    check_pairing(card, "segmentation", "dice_bce", 1)
    with pytest.raises(UserError, match="overlapping structures"):
        check_pairing(card, "segmentation", "dice_ce", 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("colour", [False, True])
def test_inputs(tmp_path: Path, dtype: Any, colour: bool) -> None:
    pairs_folder(tmp_path, 6)
    for i in range(6):
        top = np.iinfo(dtype).max + 1
        if not (colour and dtype is np.uint16):
            save(
                tmp_path / "images" / f"{i:02d}.png",
                picture(i, (20, 16, 3) if colour else (20, 16), top=top, dtype=dtype),
            )
    data = opened(tmp_path)
    image = data.splits["train"][0][0]
    assert len(image) == data.card.channels
    assert 0.9 < image.max() <= 1
    for channels in (1, 3):
        assert opened(tmp_path, channels=channels).splits["val"][0][0].shape == (channels, 20, 16)


def test_grey_and_colour_mixed(tmp_path: Path) -> None:
    pairs_folder(tmp_path, 6)
    save(tmp_path / "images" / "02.png", picture(9, (20, 16, 3)))
    data = opened(tmp_path)
    assert data.card.channels == 1
    assert "images by channels: 5 with 1, 1 with 3" in data.events[-1]["message"]
    assert opened(tmp_path, channels=3).card.channels == 3


def test_empty_masks_are_counted(tmp_path: Path) -> None:
    for place, count in (("train", 4), ("val", 2), ("test", 2)):
        pairs_folder(tmp_path, count, place=place)
    save(tmp_path / "test" / "masks" / "01.png", np.zeros((20, 16), np.uint8))
    data = opened(tmp_path)
    assert data.card.empty_masks == {"train": 0, "val": 0, "test": 1}
    assert {"kind": "empty masks", "message": "1 of 2 test masks"} in data.events


def test_fingerprint_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = opened(pairs_folder(tmp_path / "one", 6), image_size=9)
    shutil.move(tmp_path / "one", tmp_path / "two")
    monkeypatch.setattr("mixlab.data.prepare.CACHE_BYTES", 0)
    read = opened(tmp_path / "two", image_size=9)
    assert read.fingerprint == kept.fingerprint
    assert len(kept.splits["train"].targets.masks.kept) == 6
    assert not read.splits["train"].targets.masks.kept
    copied = pickle.loads(pickle.dumps(read.splits["train"]))
    for i in range(len(copied)):
        assert torch.equal(copied[i][1], kept.splits["train"][i][1])
    mask = discs(2, (20, 16))
    mask[0, 0] = 1 - mask[0, 0]
    save(tmp_path / "two" / "masks" / "02.png", mask)
    assert opened(tmp_path / "two").fingerprint != kept.fingerprint, "one pixel of one mask"


def test_volumes_and_spacing(tmp_path: Path) -> None:
    affine = np.diag([0.5, 1.0, 3.0, 1])
    for i in range(6):
        volume = np.random.default_rng(i).random((8, 9, 6)).astype(np.float32)
        nifti(tmp_path / "images" / f"{i}.nii.gz", volume, affine)
        nifti(tmp_path / "masks" / f"{i}.nii.gz", (volume > 0.5).astype(np.uint8), affine)
    data = opened(tmp_path)
    assert (data.card.spatial_dims, data.card.image_size, data.card.spacing) == (3, (6, 9, 8), (3.0, 1.0, 0.5))
    small = opened(tmp_path, image_size=[6, 9, 4])
    assert small.splits["train"].spacing[0] == (3.0, 1.0, 1.0)


def test_nuclei() -> None:
    data = opened(shared("dsb2018_nuclei"), instances=True)
    assert data.card.sizes == {"train": 45, "val": 7, "test": 13}
    assert (data.card.channels, data.card.image_size) == (1, None)
    foreground = data.card.class_counts["train"][1] / sum(data.card.class_counts["train"])
    assert 0.1 < foreground < 0.3
    assert opened(shared("dsb2018_nuclei"), instances=True, image_size=64).card.image_size == (64, 64)


def test_electron_microscopy() -> None:
    data = opened(shared("noncommercial_em_vnc"))
    index = json.loads((shared("noncommercial_em_vnc") / "index.json").read_text())
    assert data.card.classes == tuple(index["classes"].values())
    assert data.card.background is None
    assert not data.card.empty_masks
    total = np.sum(list(data.card.class_counts.values()), axis=0)
    assert total.tolist() == index["pixel_counts"]
    assert {i[:3] for i in data.splits["test"].ids} == {"s16", "s17", "s18", "s19"}
