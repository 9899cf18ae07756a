"""Segmentation sets of one's own: masks in arrays and in stores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mixlab.data import ArrayImages, DataConfig, ImageData, MaskStore, RawData, open_data
from mixlab.data.masks import ArrayMasks, digest, listed
from mixlab.data.sources import register_dataset, sources
from mixlab.errors import UserError
from tests.data.make import Array, discs, picture

SIZE = (12, 10)


class Planes:
    """Two structures, one of which is the other's complement."""

    def __init__(self, masks: Array, planes: int = 2) -> None:
        self.masks = masks
        self.planes = planes
        self.shapes = [SIZE] * len(masks)

    def __len__(self) -> int:
        return len(self.masks)

    def read(self, index: int) -> Array:
        return np.stack([self.masks[index], 1 - self.masks[index]])[: self.planes]

    def digest(self, mask: Array) -> str:
        return digest(mask)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("mixlab.data.sources._SOURCES", dict(sources()))

    def open_with(
        targets: Array | MaskStore, classes: tuple[str, ...] = ("background", "disc"), **facts: Any
    ) -> ImageData:
        @register_dataset("mine")
        def mine(config: DataConfig, argument: str) -> RawData:
            images = ArrayImages([picture(0, (len(targets), *SIZE))])
            ids = [f"case {i}" for i in range(len(targets))]
            return RawData(
                name="mine", task="segmentation", classes=classes, images=images, targets=targets, ids=ids, **facts
            )

        return open_data(DataConfig(name="mine"))

    return open_with


def masks(classes: int = 2) -> Array:
    return np.stack([discs(i, SIZE, classes) for i in range(10)])


def test_an_array_of_maps(opened: Any) -> None:
    plain = opened(masks(), background=0)
    assert plain.card.sizes == {"train": 7, "val": 1, "test": 2}
    assert plain.splits["train"][3][1].dtype == torch.int64
    partial = masks()
    partial[:, :3] = 255
    ignoring = opened(partial, background=0, ignore_label=255)
    assert ignoring.card.ignored_pixels["test"] == 2 * 30
    assert ignoring.splits["train"].targets.ignored().tolist() == [30] * 7
    assert ignoring.splits["train"].targets.counts().sum() == 7 * 90
    assert plain.fingerprint != ignoring.fingerprint


def test_a_store_of_structures(opened: Any) -> None:
    data = opened(Planes(masks()), ("disc", "rest"), overlapping=True, groups=[f"p{i // 2}" for i in range(10)])
    _, mask, _ = data.splits["val"][0]
    assert (mask.shape, mask.dtype) == ((2, *SIZE), torch.float32)
    assert (mask.sum(dim=0) == 1).all()
    assert data.card.empty_masks == {"train": 0, "val": 0, "test": 0}
    assert len(data.splits["train"].targets[1:3]) == 2


@pytest.mark.parametrize(
    ("targets", "facts", "message"),
    [
        (masks(4), {}, r"10 of 10 at fault:\n  case 0: it has the values 2, 3 outside the classes 0 to 1"),
        (-masks().astype(np.int16), {}, "values that are no class"),
        (masks().astype(np.float32), {}, "values that are no class .float32"),
        (Planes(masks(), planes=1), {"overlapping": True}, "it has 1 structures, not 2"),
        (Planes(masks(3)), {"overlapping": True}, "overlapping structures are 0 or 1"),
        (masks()[:, :-1], {}, r"10 of 10 that differ \(case 0: image 12 x 10, mask 11 x 10; "),
        (masks(), {"classes": tuple(map(str, range(256)))}, "at most 255, got 256"),
        (masks(), {"classes": ("all",)}, "at least two classes"),
    ],
)
def test_masks_that_do_not_do(opened: Any, targets: Any, facts: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        opened(targets, **facts)


def test_values_are_listed() -> None:
    assert listed([3]) == "the value 3"
    assert listed(range(9)) == "the values 0, 1, 2, 3, 4, ..."


def test_older_fingerprints_hold_for_every_integer_type() -> None:
    wide, narrow = (ArrayMasks(masks().astype(t)) for t in (np.int64, np.uint8))
    assert wide.digest(wide.read(3)) == narrow.digest(narrow.read(3))
