"""``stand-in:NAME``, and whether a set's files are at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from mixlab.data import DataConfig, at_hand, describe, list_datasets, open_data
from mixlab.data.sources.grazpedwri import TABLE
from mixlab.errors import UserError
from mixlab.studies.grid import slug
from mixlab.studies.run_config import hashed_data
from tests.data.make import image_folder, medmnist_arrays, save_npz

PUBLISHED = [
    "medmnist:pathmnist@224", "medmnist:chestmnist", "medmnist:pneumoniamnist", "medmnist:nodulemnist3d",
    "medmnist:organmnist3d@64", "imagewoof", "imagewoof:160", "grazpedwri-fracture", "grazpedwri-fracture:multilabel",
    "digits",
]  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_has_the_form_of_the_set(name: str) -> None:
    real, data = describe(name), open_data(DataConfig(name=f"stand-in:{name}"))
    card = data.card
    assert card.name == f"stand-in:{name}"
    assert (card.task, card.channels, card.spatial_dims) == (real.task, real.channels, real.spatial_dims)
    assert card.image_size == (real.image_size or (8,) * real.spatial_dims)
    assert len(card.classes) == min(len(real.classes), 5 if real.task == "multilabel" else 10)
    assert "scores mean nothing" in card.notes[0]
    assert [e["message"] for e in data.events if e["kind"] == "stand-in"] == [card.notes[0]]
    for split, count in {"train": 4, "val": 2, "test": 2}.items():
        targets = data.splits[split].targets
        if real.task == "multilabel":
            assert targets.shape == (10 * count, len(card.classes))
            assert all(set(finding) == {0, 1} for finding in targets.T)
        else:
            assert np.bincount(targets).tolist() == [count] * len(card.classes)
    assert open_data(DataConfig(name=f"stand-in:{name}")).fingerprint == data.fingerprint
    assert describe(f"stand-in:{name}").classes == card.classes


def test_its_images_are_digits() -> None:
    """In colour, in depth and at another size: the same digit."""
    pixels = np.asarray(load_digits().images, dtype=np.float32) / 16
    flat, colour, deep = (
        open_data(DataConfig(name=f"stand-in:{name}", image_size=size)).splits["test"]
        for name, size in (
            ("folder:any", None),
            ("medmnist:bloodmnist@64", 16),
            ("medmnist:organmnist3d@64", None),
        )
    )
    for i, name in enumerate(flat.ids):
        digit = pixels[int(name.removeprefix("digit-"))]
        np.testing.assert_allclose(flat[i][0][0], digit, atol=1 / 255)
    image, volume = colour[0][0], deep[0][0]
    assert (image.shape, volume.shape) == ((3, 16, 16), (1, 64, 64, 64))
    for shown, name in ((image[0], colour.ids[0]), (image[2], colour.ids[0]), (volume[0, 40], deep.ids[0])):
        small = torch.nn.functional.adaptive_avg_pool2d(shown[None], 8).numpy().ravel()
        digit = pixels[int(name.removeprefix("digit-"))].ravel()
        assert np.corrcoef(small, digit)[0, 1] > 0.95


def test_options_of_the_data_work_on_it() -> None:
    data = open_data(DataConfig(name="stand-in:imagewoof", image_size=32, folds=5, fold=1, train_per_class=3))
    assert (data.card.image_size, data.card.sizes["train"]) == ((32, 32), 30)
    assert open_data(DataConfig(name="stand-in:grazpedwri-fracture", channels=3, image_size=16)).card.channels == 3


@pytest.mark.parametrize("name", ["folder:/some/where/cells", "csv:cells", "npz:sub/cells"])
def test_a_set_that_only_its_files_describe_is_grey(name: str) -> None:
    card = open_data(DataConfig(name=f"stand-in:{name}")).card
    assert card.name == f"stand-in:{name.partition(':')[0]}:cells"
    assert (card.task, len(card.classes), card.channels, card.image_size) == ("classification", 10, 1, (8, 8))
    assert open_data(DataConfig(name=f"stand-in:{name}", channels=4)).card.channels == 4
    assert hashed_data(DataConfig(name=f"stand-in:{name}")) == {"name": f"stand-in:{name.partition(':')[0]}"}
    assert slug(f"stand-in:{name}") == slug(name) == "cells"


def test_it_is_no_set_to_train_on() -> None:
    assert not any("stand-in" in name for name in list_datasets())
    with pytest.raises(UserError, match="a data set's name"):
        open_data(DataConfig(name="stand-in:"))
    with pytest.raises(UserError, match="'pathmnist'"):
        open_data(DataConfig(name="stand-in:medmnist:pathmnits"))
    with pytest.raises(UserError, match="made from them"):
        open_data(DataConfig(name="stand-in:decathlon:Task04"))


def test_a_folder_of_objects_has_masks() -> None:
    card = open_data(DataConfig(name="stand-in:folder:nuclei", instances=True, channels=3)).card
    assert (card.task, card.channels, len(card.classes), card.background) == ("segmentation", 3, 2, 0)


@pytest.mark.parametrize("name", ["mni152", "mni152-3d", "jsrt", "grazpedwri-bones", "tiger"])
def test_segmentation_sets(name: str) -> None:
    real = describe(name)
    data = open_data(DataConfig(name=f"stand-in:{name}", image_size=32))
    card = data.card
    for field in ("task", "channels", "spatial_dims", "overlapping", "background", "ignore_label"):
        assert getattr(card, field) == getattr(real, field), field
    assert len(card.classes) == len(real.classes)
    assert min(card.class_counts["train"]) > 0
    assert card.sizes == {"train": 40, "val": 20, "test": 20}
    image, mask, _ = data.splits["train"][0]
    planes = (len(real.classes),) if real.overlapping else ()
    assert mask.shape == (*planes, *image.shape[1:])
    assert open_data(DataConfig(name=f"stand-in:{name}", image_size=32)).fingerprint == data.fingerprint
    if real.image_size is None:
        assert describe(f"stand-in:{name}").image_size == (32, 32)


def test_what_needs_no_files_is_at_hand() -> None:
    for name in ("digits", "mni152", "mni152-3d", "stand-in:imagewoof"):
        assert at_hand(DataConfig(name=name))


@pytest.mark.parametrize(
    "name",
    ["medmnist:bloodmnist", "medmnist:bloodmnist@64", "imagewoof", "imagewoof:320", "grazpedwri-fracture",
     "grazpedwri-fracture:multilabel", "folder:sub", "npz:sub/mine.npz"],
)  # fmt: skip
def test_absent_files(name: str, tmp_path: Path) -> None:
    assert not at_hand(DataConfig(name=name, root=tmp_path))
    assert not at_hand(DataConfig(name=name, root=tmp_path, download=True))
    assert not at_hand(DataConfig(name=name, root=tmp_path / "absent"))
    with pytest.raises(UserError):  # as opening says in words
        open_data(DataConfig(name=name, root=tmp_path))


def test_files_that_are_there(tmp_path: Path) -> None:
    def there(name: str) -> bool:
        return at_hand(DataConfig(name=name, root=tmp_path))

    (tmp_path / "table.csv").touch()
    assert at_hand(DataConfig(name=f"csv:{tmp_path / 'table.csv'}"))
    assert not at_hand(DataConfig(name=f"csv:{tmp_path / 'other.csv'}"))
    image_folder(tmp_path / "sub", {"a": 1, "b": 1})
    assert there("folder:sub")
    save_npz(tmp_path / "medmnist" / "bloodmnist_64.npz", medmnist_arrays({"train": 2, "val": 2, "test": 2}))
    assert there("medmnist:bloodmnist@64")
    assert not there("medmnist:bloodmnist")
    for split in ("train", "val"):
        (tmp_path / "imagewoof2-160" / split).mkdir(parents=True)
    assert there("imagewoof")
    assert not there("imagewoof:320")


def test_broken_sets_are_at_hand(tmp_path: Path) -> None:
    """They must be refused, not replaced."""
    (tmp_path / "bloodmnist.npz").write_bytes(b"torn")
    (tmp_path / "empty").mkdir()
    (tmp_path / "mine.npz").mkdir()
    (tmp_path / TABLE).write_text("filestem\n")
    for name in ("medmnist:bloodmnist", "folder:empty", "npz:mine.npz", "grazpedwri-fracture"):
        config = DataConfig(name=name, root=tmp_path)
        assert at_hand(config), name
        with pytest.raises(UserError):
            open_data(config)


@pytest.mark.parametrize(
    "name", ["digit", "medmnist:bloodmnits", "medmnist:bloodmnist@65", "imagewoof:161", "grazpedwri-fracture:x", "npz:"]
)
def test_a_wrong_name_is_no_absence(name: str) -> None:
    with pytest.raises(UserError):
        at_hand(DataConfig(name=name))
