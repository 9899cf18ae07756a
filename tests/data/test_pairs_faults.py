"""Folders of image and mask pairs that do not do: each fault has an error that names the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mixlab.data import DataConfig, open_data
from mixlab.errors import UserError
from tests.data.make import discs, pairs_folder, picture, save


def without_mask(root: Path) -> None:
    (root / "masks" / "03.png").unlink()


def without_image(root: Path) -> None:
    (root / "images" / "03.png").unlink()


def other_size(root: Path) -> None:
    save(root / "masks" / "03.png", discs(0, (16, 20)))


def a_value_too_many(root: Path) -> None:
    (root / "classes.txt").write_text("background\nlung")
    save(root / "masks" / "03.png", discs(0, (20, 16), 5))


def a_colour_too_many(root: Path) -> None:
    (root / "classes.json").write_text(json.dumps({"background": "#000000", "lung": "#010101"}))
    save(root / "masks" / "03.png", np.full((20, 16, 3), 7, np.uint8))


def colours_without_file(root: Path) -> None:
    save(root / "masks" / "03.png", np.zeros((20, 16, 3), np.uint8))


def damaged(root: Path) -> None:
    whole = (root / "masks" / "03.png").read_bytes()
    (root / "masks" / "03.png").write_bytes(whole[:-30])


def no_picture(root: Path) -> None:
    (root / "classes.txt").write_text("background\nlung")
    (root / "masks" / "03.png").write_bytes(b"nothing")


def fractions(root: Path) -> None:
    (root / "masks" / "03.png").unlink()
    save(root / "masks" / "03.tif", np.full((20, 16), 0.5, np.float32))


def lossy(root: Path) -> None:
    (root / "masks" / "03.png").unlink()
    save(root / "masks" / "03.jpg", discs(0, (20, 16)))


def twice(root: Path) -> None:
    save(root / "images" / "03.tif", picture(0, (20, 16)))


def in_no_split(root: Path) -> None:
    (root / "splits.json").write_text(json.dumps({"train": ["00", "01", "02"], "val": ["04"], "test": ["05", "9"]}))


def classes_of_nothing(root: Path) -> None:
    (root / "classes.json").write_text(json.dumps({"background": "black"}))


def same_value(root: Path) -> None:
    (root / "classes.json").write_text(json.dumps({"background": 0, "a": 1, "b": 1}))


def no_json(root: Path) -> None:
    (root / "classes.json").write_text("{")


def too_few(root: Path) -> None:
    for i in range(4):
        for part in ("images", "masks"):
            (root / part / f"{i:02d}.png").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_mask, "1 alone:\n  image 03 without mask"),
        (without_image, "1 alone:\n  mask 03 without image"),
        (other_size, r"1 of 6 that differ \(03.png: image 20 x 16, mask 16 x 20\)"),
        (
            a_value_too_many,
            r"1 of 6 at fault:\n  03.png: it has the values 2, 3, 4 outside the classes 0 \(background\)",
        ),
        (a_colour_too_many, r"03.png: it has the value #070707 outside the classes #000000 \(background\)"),
        (colours_without_file, r"mask of 03.png: its pixels are colours \(RGB\), and no class file"),
        (damaged, "1 of 6 at fault:\n  mask of 03.png: "),
        (no_picture, "1 of 6 broken .*\n  mask of 03.png: no image"),
        (fractions, "mask of 03.png: it has values that are no integers"),
        (lossy, "mask of 03.png: JPEG changes values"),
        (twice, r"each name once in images, got \['03.png', '03.tif'\]"),
        (in_no_split, "2 at fault:\n  03 in no split\n  9: no such image"),
        (classes_of_nothing, r"classes in classes.json: .*got 'black'"),
        (same_value, "twice: 1"),
        (no_json, "a JSON file"),
        (too_few, "at least 3 training images, got 2"),
    ],
)
def test_folders_that_do_not_do(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    pairs_folder(tmp_path, 6)
    spoil(tmp_path)
    with pytest.raises(UserError, match=message):
        open_data(DataConfig(name=f"folder:{tmp_path}"))
