"""Folders of images and masks of many kinds, small enough to train on in a test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mixlab.data import DataConfig
from tests.data.make import Array, discs, picture, save

SPLITS = {"train": 4, "val": 2, "test": 3}
COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)
#: Makes image and mask of a case from its seed and its number.
Case = Callable[[int, int], tuple[Array, Array]]


def write(root: Path, case: Case, classes: Any = None, **options: Any) -> DataConfig:
    """``root/{train,val,test}/{images,masks}/N.png``."""
    seed = 0
    for split, count in SPLITS.items():
        for i in range(count):
            image, mask = case(seed, i)
            save(root / split / "images" / f"{i}.png", lit(image, mask))
            save(root / split / "masks" / f"{i}.png", mask)
            seed += 1
    if classes is not None:
        (root / "classes.json").write_text(json.dumps(classes))
    return DataConfig(name=f"folder:{root}", **options)


def lit(image: Array, mask: Array) -> Array:
    """The image, brighter where there is a structure, so that there is something to learn."""
    top = np.iinfo(image.dtype).max
    there: Array = mask.reshape(*image.shape[:2], -1) > 0
    there = there.any(axis=2).reshape(*image.shape[:2], *[1] * (image.ndim - 2))
    return np.where(there, image // 2 + top // 2, image // 2).astype(image.dtype)


def plain(root: Path) -> DataConfig:
    """Index masks of three classes."""
    return write(root, lambda seed, i: (picture(seed, (20, 16)), discs(seed, (20, 16), 3)))


def odd_sizes(root: Path) -> DataConfig:
    """181 x 217 and 250 x 250 pixels, in turn."""

    def case(seed: int, i: int) -> tuple[Array, Array]:
        mask = np.kron(discs(seed, (25, 25)), np.ones((10, 10), np.uint8))
        mask = mask if i % 2 else mask[:181, :217]
        return picture(seed, mask.shape), mask

    return write(root, case)


def sixteen_bits(root: Path) -> DataConfig:
    """Grey images of sixteen bits; one mask of each split is empty."""

    def case(seed: int, i: int) -> tuple[Array, Array]:
        return picture(seed, (20, 16), top=2**16, dtype=np.uint16), discs(seed, (20, 16)) * (i > 0)

    return write(root, case, {"background": 0, "lesion": 1})


def colours(root: Path) -> DataConfig:
    """RGB images, masks in colours."""
    classes = {"background": "#000000", "lung": "#ff0000", "heart": "#0000ff"}
    return write(root, lambda seed, i: (picture(seed, (17, 19, 3)), COLOURS[discs(seed, (17, 19), 3)]), classes)


def instances(root: Path) -> DataConfig:
    """Masks that number their objects."""
    case: Case = lambda seed, i: (picture(seed, (20, 16)), discs(seed, (20, 16), 6).astype(np.uint16) * 40)  # noqa: E731
    return write(root, case, instances=True)


def ignored(root: Path) -> DataConfig:
    """The first rows count for nothing."""

    def case(seed: int, i: int) -> tuple[Array, Array]:
        mask = discs(seed, (20, 16), 3)
        mask[:4] = 200
        return picture(seed, (20, 16)), mask

    return write(root, case, {"ignore": 200, "background": 0, "a": 1, "b": 2})


def empty_test(root: Path) -> DataConfig:
    """No structure in any mask of the test split."""

    def case(seed: int, i: int) -> tuple[Array, Array]:
        first = SPLITS["train"] + SPLITS["val"]
        return picture(seed, (20, 16)), discs(seed, (20, 16)) * (seed < first)

    return write(root, case, {"background": 0, "lesion": 1})


def thin(root: Path) -> DataConfig:
    """Images one pixel high."""
    return write(
        root, lambda seed, i: (picture(seed, (1, 40)), np.kron(picture(seed, (1, 8), top=2), np.ones((1, 5), np.uint8)))
    )


def nothing(root: Path) -> DataConfig:
    """No structure in any mask."""
    case: Case = lambda seed, i: (picture(seed, (20, 16)), np.zeros((20, 16), np.uint8))  # noqa: E731
    return write(root, case, {"background": 0, "lesion": 1})


def overlapping(root: Path) -> DataConfig:
    """Two structures, each in a folder of its own; the second is absent in one case."""
    for seed in range(8):
        save(root / "images" / f"{seed}.png", lit(picture(seed, (20, 16)), discs(seed, (20, 16))))
        for number, name in enumerate(("heart", "lung")):
            if (seed, name) != (0, "lung"):
                save(root / "masks" / name / f"{seed}.png", discs(seed + number, (20, 16)) * 255)
    return DataConfig(name=f"folder:{root}")


KINDS: dict[str, Callable[[Path], DataConfig]] = {
    f.__name__: f for f in (plain, odd_sizes, sixteen_bits, colours, instances, ignored, empty_test, thin, overlapping)
}
