"""Crops: image and mask stay together, small images are padded, draws are named by (seed, epoch, index)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mixlab.data.masks import IGNORE
from mixlab.training.crops import RandomCrops, cut, outside_of_masks, padded_to
from mixlab.training.determinism import SeededSplit
from mixlab.training.loaders import train_loader
from mixlab.training.machine import Machine
from mixlab.training.recipe import Recipe

#: Size of the images and of the crop: larger, smaller and both at once, in every dimension.
SIZES = {
    "1d": ((19,), (8,)),
    "2d": ((13, 17), (6, 9)),
    "3d": ((7, 9, 8), (4, 5, 3)),
    "one pixel high": ((1, 17), (1, 8)),
    "as large as the image": ((13, 17), (13, 17)),
    "larger on one axis": ((13, 5), (6, 9)),
    "larger on all axes": ((3, 4, 5), (6, 7, 8)),
}
THRESHOLD = 0.6


class Thresholded(Dataset[tuple[Tensor, Tensor, int]]):
    """Images of noise whose mask is where they are bright; no value is 0, as the padding is."""

    def __init__(self, count: int, size: tuple[int, ...], *, overlapping: bool = False) -> None:
        self.images = 0.1 + 0.9 * torch.rand(count, 2, *size, generator=torch.Generator().manual_seed(1))
        self.overlapping = overlapping

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        image = self.images[index]
        mask = image > THRESHOLD
        return image, mask.float() if self.overlapping else mask[0].long(), index


@pytest.mark.parametrize("case", SIZES)
@pytest.mark.parametrize("overlapping", [False, True])
def test_image_and_mask_stay_aligned(case: str, overlapping: bool) -> None:
    size, crop = SIZES[case]
    crops = RandomCrops(Thresholded(5, size, overlapping=overlapping), crop, outside=0 if overlapping else 7)
    for index in range(5):
        image, mask, number = crops[index]
        assert number == index
        assert image.shape == (2, *crop)
        assert mask.shape == ((2, *crop) if overlapping else crop)
        assert mask.dtype == (torch.float32 if overlapping else torch.int64)
        inside = image[0] > 0
        assert inside.sum() == torch.tensor([min(a, b) for a, b in zip(size, crop, strict=True)]).prod()
        truth = image > THRESHOLD
        if overlapping:
            assert torch.equal(mask.bool(), truth)
        else:
            assert torch.equal(mask, torch.where(inside, truth[0].long(), 7))
        # padded at the end: what there is begins in the first corner
        assert inside[tuple(slice(min(a, b)) for a, b in zip(size, crop, strict=True))].all()


def test_crops_come_from_every_place() -> None:
    """A crop of one pixel shorter than a line has two places, its first and its last."""
    crops = RandomCrops(Thresholded(1, (5,)), (4,), outside=0)
    line = crops.split[0][0][0]
    found = {tuple(crops[0][0][0].tolist()) for _ in range(40)}
    assert found == {tuple(line[:4].tolist()), tuple(line[1:].tolist())}


@pytest.mark.parametrize("case", ["1d", "2d", "3d"])
def test_several_crops_of_an_image_differ_and_keep_its_number(case: str) -> None:
    size, crop = SIZES[case]
    split = Thresholded(3, size)
    crops = RandomCrops(split, crop, outside=0, each=4)
    assert len(crops) == 12
    seeded = SeededSplit(crops, seed=5)
    found = [seeded[0, i] for i in range(12)]
    assert [number for _, _, number in found] == [0] * 4 + [1] * 4 + [2] * 4
    for image in range(3):
        assert len({found[4 * image + i][0].numpy().tobytes() for i in range(4)}) > 1


def test_draws_are_a_function_of_seed_epoch_and_index() -> None:
    seeded = SeededSplit(RandomCrops(Thresholded(4, (300, 300)), (6, 6), outside=0, each=2), seed=5)
    reference = {(epoch, i): seeded[epoch, i][0] for epoch in range(3) for i in range(8)}
    for draw in reversed(list(reference)):
        torch.rand(7)  # whatever was drawn before
        assert torch.equal(seeded[draw][0], reference[draw])
    assert len({image.numpy().tobytes() for image in reference.values()}) == len(reference)
    other = SeededSplit(seeded.split, seed=6)
    assert not torch.equal(other[0, 0][0], reference[0, 0])


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_gives_the_same_crops_whatever_the_workers(workers: int) -> None:
    card: Any = SimpleNamespace(task="segmentation", overlapping=False, background=0, spatial_dims=2)
    recipe = Recipe(batch_size=3, crop_size=6, crops_per_image=2, class_weights="none")
    split = Thresholded(4, (13, 17))
    loader = train_loader(split, card, recipe, Machine(workers=workers), seed=2, epoch=1)
    batches = list(loader)
    assert [len(numbers) for _, _, numbers in batches] == [3, 3, 2]
    drawn = loader.batch_sampler.sampler.order(1).tolist()  # type: ignore[union-attr]
    assert torch.cat([numbers for _, _, numbers in batches]).tolist() == [i // 2 for i in drawn]
    seeded = SeededSplit(RandomCrops(split, (6, 6), 0, 2), seed=2)
    want = torch.stack([seeded[1, i][0] for i in drawn])
    assert torch.equal(torch.cat([images for images, _, _ in batches]), want)


@pytest.mark.parametrize(
    ("card", "value"),
    [
        ({"background": 0}, 0),
        ({"background": 2}, 2),
        ({"background": None}, IGNORE),
        ({"background": None, "overlapping": True}, 0),
        ({"task": "classification"}, 0),
    ],
)
def test_what_masks_hold_where_there_is_no_image(card: dict[str, Any], value: int) -> None:
    assert outside_of_masks(SimpleNamespace(**{"task": "segmentation", "overlapping": False, **card})) == value


def test_padding_and_cutting_by_hand() -> None:
    x = torch.arange(6).reshape(2, 3)
    assert padded_to(x, (3, 4), 255).tolist() == [[0, 1, 2, 255], [3, 4, 5, 255], [255] * 4]
    assert padded_to(x, (1, 1)) is x
    assert padded_to(x[None, None], (2, 4)).tolist() == [[[[0, 1, 2, 0], [3, 4, 5, 0]]]]
    assert cut(x, (0, 1), (1, 9)).tolist() == [[1, 2]]
    assert torch.equal(cut(padded_to(x, (5, 5)), (0, 0), (2, 3)), x)


@pytest.mark.parametrize("size", [0, [0, 4], [], -3, (4, -1)])
def test_sizes_of_crops_are_positive(size: Any) -> None:
    with pytest.raises(ValueError, match=r"recipe\.crop_size: expected sizes of at least 1, got"):
        Recipe(crop_size=size)


def test_a_tuple_is_a_size_as_well() -> None:
    assert Recipe(crop_size=(4, 5)) == Recipe(crop_size=[4, 5])  # type: ignore[arg-type]
