"""Files to predict on get the channels and the size of the training images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mixlab.data import DataConfig, image_files, open_data
from mixlab.errors import UserError
from tests.data.make import image_folder, nifti, picture, save


def test_they_are_read_as_in_training(tmp_path: Path) -> None:
    root = image_folder(tmp_path, {"a": 6, "b": 6}, size=(12, 10, 3))
    data = open_data(DataConfig(name=f"folder:{root}", image_size=8, channels=1))
    train = data.splits["train"]
    loose = image_files([root / name for name in train.ids], data.card)
    assert len(loose) == len(train)
    assert loose.ids[0] == str(root / train.ids[0])
    assert all(torch.equal(loose[i][0], train[i][0]) for i in range(len(train)))
    other = image_files([save(tmp_path / "grey.tif", picture(1, (30, 40)))], data.card)
    assert other[0][0].shape == (1, 8, 8)


def test_images_to_segment_keep_their_size(tmp_path: Path) -> None:
    for i in range(6):
        save(tmp_path / "images" / f"{i}.png", picture(i, (20 + i, 16)))
        save(tmp_path / "masks" / f"{i}.png", picture(i, (20 + i, 16), top=2))
    card = open_data(DataConfig(name=f"folder:{tmp_path}")).card
    brain = nifti(tmp_path / "brain.nii.gz", picture(0, (18, 21)), np.diag([0.5, 2.0, 1.0, 1.0]))
    loose = image_files([save(tmp_path / "odd.png", picture(1, (21, 18))), brain], card)
    assert [loose[i][0].shape for i in range(2)] == [(1, 21, 18)] * 2
    assert loose[0][1].shape == (21, 18)
    assert loose.spacing == [None, (2.0, 0.5)]


def test_faults_are_all_named(tmp_path: Path) -> None:
    root = image_folder(tmp_path, {"a": 6, "b": 6})
    card = open_data(DataConfig(name=f"folder:{root}")).card
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(UserError, match="2 of 3 at fault") as error:
        image_files([root / "a/00.png", tmp_path / "gone.png", tmp_path / "x.txt"], card)
    assert "gone.png: no such file" in str(error.value)
    assert "x.txt: no image format" in str(error.value)
    (tmp_path / "y.png").write_text("no image")
    with pytest.raises(UserError, match="1 of 1 broken"):
        image_files([tmp_path / "y.png"], card)
    with pytest.raises(UserError, match="got none"):
        image_files([], card)
