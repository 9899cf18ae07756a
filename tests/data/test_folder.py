"""``folder:PATH``: layouts, splits, events, and what is wrong with a folder."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mixlab.data import DataConfig, ImageData, open_data
from mixlab.errors import UserError
from tests.data.make import dicom, image_folder, nifti, picture, save, shared


def opened(path: Path, **options: Any) -> ImageData:
    return open_data(DataConfig(name=f"folder:{path}", **options))


def kinds(data: ImageData) -> set[str]:
    return {e["kind"] for e in data.events}


def test_no_splits_given(tmp_path: Path) -> None:
    data = opened(image_folder(tmp_path, {"cat": 20, "dog": 10}))
    assert data.card.sizes == {"train": 21, "val": 4, "test": 5}
    assert data.card.class_counts == {"train": (14, 7), "val": (3, 1), "test": (3, 2)}
    assert data.card.classes == ("cat", "dog")
    assert "seeded, stratified" in data.card.splits
    assert kinds(data) == {"split"}
    ids = [i for split in data.splits.values() for i in split.ids]
    assert len(set(ids)) == 30
    assert data.splits["train"].ids[0].startswith("cat/")
    other = opened(tmp_path, split_seed=1)
    assert other.splits["test"].ids != data.splits["test"].ids
    assert other.fingerprint != data.fingerprint
    assert opened(tmp_path).fingerprint == data.fingerprint


def test_one_image_more_moves_no_other(tmp_path: Path) -> None:
    before = opened(image_folder(tmp_path, {"cat": 20, "dog": 20}))
    save(tmp_path / "cat" / "new.png", picture(99))
    after = opened(tmp_path)
    for name, split in before.splits.items():
        assert len(set(split.ids) - set(after.splits[name].ids)) <= 1


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_all_splits_given(tmp_path: Path, val: str) -> None:
    counts = {f"{s}/{c}": n for s, n in (("train", 4), (val, 2), ("test", 1)) for c in "ab"}
    data = opened(image_folder(tmp_path, counts))
    assert data.card.sizes == {"train": 8, "val": 4, "test": 2}
    assert data.card.splits == "given"
    assert not data.events
    assert data.splits["test"].ids == ["test/a/00.png", "test/b/00.png"]


def test_given_validation_becomes_test(tmp_path: Path) -> None:
    data = opened(image_folder(tmp_path, {"train/a": 10, "train/b": 10, "val/a": 3, "val/b": 4}))
    assert data.card.sizes == {"train": 16, "val": 4, "test": 7}
    assert all(i.startswith("val/") for i in data.splits["test"].ids)
    assert all(i.startswith("train/") for i in data.splits["val"].ids)
    assert "used as test" in data.card.splits


def test_validation_is_drawn_next_to_a_given_test(tmp_path: Path) -> None:
    data = opened(image_folder(tmp_path, {"train/a": 10, "train/b": 10, "test/a": 3, "test/b": 4}))
    assert data.card.sizes == {"train": 16, "val": 4, "test": 7}
    assert all(i.startswith("test/") for i in data.splits["test"].ids)


def test_items_and_statistics(tmp_path: Path) -> None:
    data = opened(image_folder(tmp_path, {"a": 6, "b": 6}, size=(12, 10, 3)))
    train = data.splits["train"]
    image, target, index = train[1]
    assert (image.dtype, image.shape) == (torch.float32, (3, 12, 10))
    assert (target.dtype, target.shape, index) == (torch.int64, (), 1)
    assert train.labels.tolist() == train.targets.tolist()
    pixels = torch.stack([x for x, _, _ in (train[i] for i in range(len(train)))])
    np.testing.assert_allclose(data.card.mean, pixels.mean(dim=(0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(data.card.std, pixels.std(dim=(0, 2, 3), correction=0), atol=1e-6)
    with pytest.raises(IndexError):
        train[len(train)]


def test_it_is_the_same_in_workers_and_after_pickling(tmp_path: Path) -> None:
    split = opened(image_folder(tmp_path, {"a": 6, "b": 6}), image_size=9).splits["train"]
    here = torch.stack([split[i][0] for i in range(len(split))])
    copied = pickle.loads(pickle.dumps(split))
    images, _, indices = next(iter(DataLoader(copied, batch_size=len(split), num_workers=1)))
    assert torch.equal(images, here)
    assert indices.tolist() == list(range(len(split)))


def test_memory_does_not_change_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_folder(tmp_path, {"a": 6, "b": 6}, size=(30, 20, 3))
    kept = opened(tmp_path, image_size=[8, 9])
    monkeypatch.setattr("mixlab.data.prepare.CACHE_BYTES", 2 * 3 * 8 * 9)
    read = opened(tmp_path, image_size=[8, 9])
    assert len(read.splits["train"].images.kept) == 2
    assert len(kept.splits["train"].images.kept) == 12
    for i in range(len(kept.splits["train"])):
        assert torch.equal(kept.splits["train"][i][0], read.splits["train"][i][0])
    assert read.fingerprint == kept.fingerprint


def test_fingerprint_knows_content_and_not_place(tmp_path: Path) -> None:
    first = opened(image_folder(tmp_path / "one", {"a": 6, "b": 6}))
    shutil.move(tmp_path / "one", tmp_path / "two")
    assert opened(tmp_path / "two").fingerprint == first.fingerprint
    save(tmp_path / "two" / "a" / "03.png", picture(3) ^ 1)
    changed = opened(tmp_path / "two").fingerprint
    assert changed != first.fingerprint
    (tmp_path / "two" / "b").rename(tmp_path / "two" / "c")
    assert opened(tmp_path / "two").fingerprint != changed, "class names count"


def test_root_and_relative_path(tmp_path: Path) -> None:
    image_folder(tmp_path / "mine", {"a": 6, "b": 6})
    whole = opened(tmp_path / "mine")
    assert open_data(DataConfig(name="folder:mine", root=tmp_path)).fingerprint == whole.fingerprint
    assert open_data(DataConfig(name="folder", root=tmp_path / "mine")).fingerprint == whole.fingerprint


def test_mixed_colours_follow_the_majority(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 6, "b": 4})
    image_folder(tmp_path, {"b": 2}, size=(12, 10, 3), first=50)
    data = opened(tmp_path)
    assert data.card.channels == 1
    assert kinds(data) == {"split", "channels"}
    colour = opened(tmp_path, channels=3)
    assert colour.splits["train"][0][0].shape == (3, 12, 10)
    grey = [i for i, name in enumerate(colour.splits["train"].ids) if name.startswith("a/")]
    image = colour.splits["train"][grey[0]][0]
    assert torch.equal(image[0], image[2])
    with pytest.raises(UserError, match="channels"):
        opened(tmp_path, channels=4)


def test_sizes_that_vary_need_a_size(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 6, "b": 6})
    save(tmp_path / "a" / "big.png", picture(70, (20, 30)))
    with pytest.raises(UserError, match=r"2 sizes from 12 x 10 to 20 x 30.*image_size"):
        opened(tmp_path)
    assert opened(tmp_path, image_size=16).card.image_size == (16, 16)
    assert opened(tmp_path, image_size=[8, 16]).splits["val"][0][0].shape == (1, 8, 16)
    with pytest.raises(UserError, match="one number or 2"):
        opened(tmp_path, image_size=[8, 8, 8])


def test_broken_files_are_all_named(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 8, "b": 8}, size=(40, 40))
    whole = (tmp_path / "a" / "01.png").read_bytes()
    (tmp_path / "a" / "01.png").write_bytes(whole[:200])
    (tmp_path / "b" / "02.png").write_bytes(b"no image at all")
    (tmp_path / "b" / "05.png").write_bytes(b"")
    with pytest.raises(UserError, match="3 of 16 broken") as error:
        opened(tmp_path)
    for name in ("a/01.png", "b/02.png", "b/05.png"):
        assert name in str(error.value)
    for name in ("b/02.png", "b/05.png"):
        (tmp_path / name).unlink()
    with pytest.raises(UserError, match=r"1 of 14 broken .*:\n  a/01.png"):  # the header alone is fine
        opened(tmp_path)


def test_copies_are_recorded(tmp_path: Path) -> None:
    image_folder(tmp_path, {"train/a": 5, "train/b": 5, "val/a": 2, "val/b": 2, "test/a": 2, "test/b": 2})
    shutil.copy(tmp_path / "train/a/00.png", tmp_path / "test/b/00.png")
    data = opened(tmp_path)
    assert any("1 of 4 test images also occurs in train (test/b/00.png)" in leak for leak in data.card.leaks)
    assert any("two different labels" in leak for leak in data.card.leaks)
    assert [e["kind"] for e in data.events] == ["duplicates"] * 2


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"a": 6, "b": 1}, "at least 3 training images of each class, got 'b' has 1"),
        ({"a": 6, "b": 2}, "'b' has 2"),
        ({"a": 6}, "at least two classes"),
        ({"a": 6, "b": 6, "c": 0}, "none in c"),
        ({"train/a": 5, "train/b": 1, "val/a": 1, "test/a": 1}, "'b' has 1"),
        ({"train/a": 5, "train/b": 5, "test/a": 1, "test/c": 1}, "got c"),
        ({}, "no image"),
        ({"train/a": 5, "train/b": 5, "masks": 3}, "splits next to other folders: masks"),
        ({"val/a": 5, "val/b": 5, "test/a": 3}, "train, and at most one val"),
        ({"train/a": 5, "train/b": 5, "val/a": 3, "valid/a": 2}, "at most one val"),
    ],
)
def test_folders_that_do_not_do(tmp_path: Path, counts: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        opened(image_folder(tmp_path, counts))


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="an existing folder"):
        opened(tmp_path / "nowhere")
    with pytest.raises(UserError, match="folder:PATH with a path"):
        open_data(DataConfig(name="folder"))


def test_other_files_are_left_out_and_recorded(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 6, "b": 6})
    (tmp_path / "a" / "notes.txt").write_text("mine")
    (tmp_path / "a" / ".hidden.png").write_text("mine")
    save(tmp_path / "b" / "inner" / "x.png", picture(80))
    save(tmp_path / "loose.png", picture(81))
    data = opened(tmp_path)
    assert sum(data.card.sizes.values()) == 13
    (message,) = (e["message"] for e in data.events if e["kind"] == "ignored")
    assert message == f"not read as images: 1 .txt, 1 outside the class folders ({tmp_path.name})"


def test_training_alone_is_divided(tmp_path: Path) -> None:
    data = opened(image_folder(tmp_path, {"train/a": 10, "train/b": 10}))
    assert data.card.sizes == {"train": 14, "val": 2, "test": 4}


def test_low_data_subsets_are_nested(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 30, "b": 10})
    small, large = (opened(tmp_path, train_per_class=n) for n in (3, 8))
    assert small.card.class_counts["train"] == (3, 3)
    assert large.card.class_counts["train"] == (8, 7)
    assert set(small.splits["train"].ids) < set(large.splits["train"].ids)
    assert any("b has only 7" in e["message"] for e in large.events if e["kind"] == "subset")
    assert small.splits["test"].ids == large.splits["test"].ids
    assert small.fingerprint != large.fingerprint


def test_volumes(tmp_path: Path) -> None:
    pytest.importorskip("monai")
    for i in range(8):
        nifti(tmp_path / "ab"[i % 2] / f"{i}.nii.gz", picture(i, (4, 5, 6)).astype(np.float32))
    data = opened(tmp_path)
    assert (data.card.spatial_dims, data.card.image_size, data.card.channels) == (3, (6, 5, 4), 1)
    assert data.splits["train"][0][0].shape == (1, 6, 5, 4)
    assert "intensity" in kinds(data)
    assert opened(tmp_path, image_size=8).splits["train"][0][0].shape == (1, 8, 8, 8)
    save(tmp_path / "a" / "flat.png", picture(1))
    with pytest.raises(UserError, match="images or volumes, not both"):
        opened(tmp_path)


def test_dicom_folder(tmp_path: Path) -> None:
    pytest.importorskip("monai")
    for i in range(8):
        dicom(tmp_path / "ab"[i % 2] / f"{i}.dcm", picture(i, (6, 9), top=4096, dtype=np.uint16))
    data = opened(tmp_path)
    assert data.splits["train"][0][0].shape == (1, 6, 9)
    (tmp_path / "a" / "0.dcm").write_bytes(b"not a DICOM file")
    with pytest.raises(UserError, match=r"a/0\.dcm"):
        opened(tmp_path)


def test_photographs() -> None:
    data = opened(shared("caltech101_animals10"), image_size=32)
    assert data.card.sizes == {"train": 452, "val": 80, "test": 228}
    assert len(data.card.classes) == 10
    assert data.splits["train"][0][0].shape == (3, 32, 32)
    assert "channels" in kinds(data)
