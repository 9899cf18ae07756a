"""What all sources share: configuration, registration, cards, pairings, resizing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from mixlab.data import ArrayImages, DataCard, DataConfig, RawData, check_pairing, describe, list_datasets, open_data
from mixlab.data.resize import resize, resize_mask, set_channels, to_unit
from mixlab.data.sources import register_dataset, sources
from mixlab.errors import UserError
from tests.data.make import picture


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": ""}, "the name of a data set"),
        ({"image_size": 0}, "image_size"),
        ({"image_size": [28, -1]}, "image_size"),
        ({"image_size": []}, "image_size"),
        ({"channels": 0}, "channels"),
        ({"train_per_class": 0}, "train_per_class"),
        ({"split_seed": -1}, "split_seed"),
        ({"folds": 1}, "at least 2 folds"),
        ({"fold": 0}, "a number of folds"),
        ({"folds": 3, "fold": 3}, "a fold from 0 to 2"),
    ],
)
def test_configurations_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DataConfig(**options)


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(UserError, match="'digits'"):
        open_data(DataConfig(name="digit"))
    with pytest.raises(UserError, match="without a colon"):
        open_data(DataConfig(name="digits:3"))
    with pytest.raises(UserError, match="made from its files"):
        describe("folder:here")


def test_list() -> None:
    names = list_datasets()
    for name in ("digits", "mni152", "mni152-3d", "imagewoof", "folder:PATH", "csv:PATH", "medmnist:NAME[@SIZE]"):
        assert name in names
    assert names == sorted(names)


def test_every_published_set_describes_itself() -> None:
    for name in list_datasets():
        if not name.endswith(("PATH", "]")):
            card = describe(name)
            assert card.licence
            assert card.citation
            assert card.source
            assert card.splits
            assert json.loads(json.dumps(card.to_dict()))["name"] == card.name == name


def test_a_set_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixlab.data.sources._SOURCES", dict(sources()))

    @register_dataset("stripes")
    def stripes(config: DataConfig, argument: str) -> RawData:
        pixels = np.zeros((20, 8, 8), dtype=np.uint16)
        pixels[:10, ::2] = pixels[10:, :, ::2] = 65535
        pixels += np.arange(20, dtype=np.uint16)[:, None, None] * (pixels == 0)
        labels = np.repeat([0, 1], 10)
        ids = [f"s{i}" for i in range(20)]
        images = ArrayImages([pixels])
        return RawData(
            name="stripes", task="classification", classes=("rows", "columns"), images=images, targets=labels, ids=ids
        )

    assert "stripes" in list_datasets()
    data = open_data(DataConfig(name="stripes"))
    assert data.card.sizes == {"train": 14, "val": 2, "test": 4}
    assert data.splits["train"][0][0].max() == 1
    register_dataset("stripes")(stripes)  # a file that is imported twice
    with pytest.raises(UserError, match="a free name"):
        register_dataset("stripes")(lambda config, argument: stripes(config, argument))
    with pytest.raises(UserError, match="without a colon"):
        register_dataset("a:b")


def raw(**changes: Any) -> RawData:
    options: dict[str, Any] = {
        "name": "own", "task": "classification", "classes": ("a", "b"), "ids": list("abcdef"),
        "images": ArrayImages([picture(0, (6, 5, 5))]), "targets": np.array([0, 1] * 3),
    }  # fmt: skip
    return RawData(**{**options, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": np.array([0, 1, 2] * 2)}, r"values from 0 to 1, got 2 out of range \(c has 2, f has 2\)"),
        ({"targets": np.array([0, -1] * 3)}, "b has -1"),
        ({"ids": list("abc")}, "as many labels as images"),
        ({"ids": []}, "at least one image"),
        ({"classes": ("a",)}, "at least two classes"),
    ],
)
def test_sources_that_contradict_themselves(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        raw(**changes).check()


def test_pixels_that_are_no_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="one of uint8, uint16, float32"):
        ArrayImages([np.zeros((6, 5, 5))])
    monkeypatch.setattr("mixlab.data.sources._SOURCES", dict(sources()))
    pixels = np.full((20, 5, 5), 0.5, dtype=np.float32)
    pixels[3], pixels[7, 0, 0] = 255, np.nan

    @register_dataset("raw")
    def open_raw(config: DataConfig, argument: str) -> RawData:
        labels = np.arange(20) % 2
        return raw(ids=[f"c{i}" for i in range(20)], images=ArrayImages([pixels]), targets=labels)

    with pytest.raises(UserError, match=r"2 of 20 broken .*:\n  image 3: .*outside \[0, 1\]\n  image 7"):
        open_data(DataConfig(name="raw"))


def test_pairing() -> None:
    card = describe("medmnist:chestmnist")
    check_pairing(card, "multilabel", "bce", 1)
    with pytest.raises(UserError, match="task: expected multilabel"):
        check_pairing(card, "classification", "cross_entropy", 1)
    with pytest.raises(UserError, match=r"loss.*bce"):
        check_pairing(card, "multilabel", "cross_entropy", 1)
    with pytest.raises(UserError, match=r"channels.*in_channels=1, or data\.channels=3"):
        check_pairing(card, "multilabel", "bce", 3)
    check_pairing(describe("mni152"), "segmentation", "dice_ce", 1)
    check_pairing(describe("digits"), "classification", "cross_entropy", 1)
    with pytest.raises(UserError, match="loss"):
        check_pairing(describe("digits"), "classification", "dice_ce", 1)


def test_card_is_frozen_and_plain() -> None:
    card = DataCard(name="x", task="classification", classes=("a", "b"), channels=1, spatial_dims=2, flips=(0,))
    assert card.to_dict()["classes"] == ["a", "b"]
    with pytest.raises(AttributeError):
        card.name = "y"  # type: ignore[misc]


def test_resizing() -> None:
    image = picture(0, (3, 20, 30))
    small = resize(image, (7, 9))
    assert (small.shape, small.dtype) == ((3, 7, 9), np.uint8)
    x = torch.from_numpy(image)[None].float()
    direct = functional.interpolate(x, size=(7, 9), mode="bilinear", antialias=True)[0]
    assert np.abs(small - direct.numpy()).max() <= 0.5
    assert resize(image, (20, 30)) is image
    constant = np.full((1, 9, 9, 9), 777, dtype=np.uint16)
    assert (resize(constant, (4, 5, 12)) == 777).all()


def test_resizing_of_volumes_is_separable_and_knows_no_axis() -> None:
    volume = np.random.default_rng(0).random((1, 12, 12, 12)).astype(np.float32)
    moved = resize(volume.transpose(0, 3, 1, 2), (5, 5, 5)).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(resize(volume, (5, 5, 5)), moved, atol=1e-6)


def test_resized_floats_stay_in_range() -> None:
    for size in ((32, 32), (37, 51), (7, 5)):
        assert resize(np.ones((1, 35, 50), np.float32), size).max() <= 1
    wrong = np.full((1, 9, 9), 255, np.float32)
    assert resize(wrong, (5, 5)).max() > 200, "values that are no intensities are not hidden"
    assert np.isnan(resize(np.full((1, 9, 9), np.nan, np.float32), (5, 5))).all()


def test_masks_keep_their_labels() -> None:
    mask = picture(0, (20, 30), top=3)
    assert set(np.unique(resize_mask(mask, (11, 50)))) <= {0, 1, 2}
    np.testing.assert_array_equal(resize_mask(np.repeat(np.repeat(mask, 2, 0), 2, 1), (20, 30)), mask)


def test_channels() -> None:
    colour = picture(0, (3, 4, 5))
    grey = set_channels(colour, 1)
    assert grey.dtype == np.uint8
    np.testing.assert_allclose(grey[0], 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2], atol=0.51)
    np.testing.assert_array_equal(set_channels(grey, 3), np.repeat(grey, 3, axis=0))
    assert to_unit(np.full((1, 2, 2), 65535, dtype=np.uint16)).tolist() == [[[1, 1], [1, 1]]]


def test_import_is_light() -> None:
    heavy = ("sklearn", "nilearn", "medmnist", "monai", "pandas", "lightning")
    code = f"import sys, mixlab.data; print([m for m in {heavy!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_files_are_small() -> None:
    here = Path(__file__).parent
    for path in [*here.glob("*.py"), *(here.parents[1] / "mixlab" / "data").rglob("*.py")]:
        assert len(path.read_text().splitlines()) < 300
