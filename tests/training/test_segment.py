"""Masks and scores from models: windows that slide, ignored pixels, other sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mixlab.data.masks import IGNORE
from mixlab.training.determinism import reseed
from mixlab.training.fit import evaluate
from mixlab.training.machine import Machine
from mixlab.training.recipe import Recipe
from mixlab.training.segment import segment
from mixlab.training.segmentation import SegmentationTask
from tests.training.toys_masks import OVERLAPPING_CARD, MaskCard, MaskNet, MaskSplit, PixelNet

IGNORING = MaskCard(ignore_label=IGNORE)


def test_masked_and_unmasked_dice_by_hand() -> None:
    """A line of eight pixels: bright where the model says so; the last two are ignored, and the model says bright."""
    card = MaskCard(spatial_dims=1, mean=(0.0,), std=(1.0,), ignore_label=IGNORE)
    split = MaskSplit(1, [(8,)], card=card)
    split.images = [np.array([[1, 1, 1, 0.5, 0.5, 0.5, 1, 1]], dtype=np.float32)]
    split.targets[0] = np.array([1, 1, 0, 1, 0, 0, IGNORE, IGNORE], dtype=np.uint8)
    arrays, metrics = evaluate(PixelNet(3, 1), card, split, recipe=Recipe())
    assert {name: arrays[name].tolist() for name in ("true", "said", "hit", "said_unmasked")} == {
        "true": [[3, 0]],
        "said": [[3, 0]],
        "hit": [[2, 0]],
        "said_unmasked": [[5, 0]],
    }
    assert metrics["dice"] == pytest.approx(4 / 6)
    assert metrics["dice_unmasked"] == pytest.approx(4 / 8)
    assert metrics["per_structure_dice"] == [pytest.approx(4 / 6), None]
    assert metrics["cases_without"] == [0, 1]
    # the border of what is said is 0 and 2, of the truth 0, 1 and 3; the way from there is the longer one
    assert metrics["per_structure_hd95"] == [pytest.approx(np.percentile([0, 1, 1], 95)), None]


@pytest.mark.parametrize(
    ("size", "crop"), [((29,), 8), ((19, 23), 8), ((9, 8, 11), [4, 8, 5]), ((5, 23), [8, 7]), ((1, 30), [1, 8])]
)
@pytest.mark.parametrize("classes", [2, 3])
def test_a_window_that_slides_sees_what_the_whole_image_shows(size: tuple[int, ...], crop: Any, classes: int) -> None:
    """Of a model that looks at each pixel alone."""
    dims = len(size)
    card = MaskCard(spatial_dims=dims) if classes == 3 else MaskCard(**{**vars(OVERLAPPING_CARD), "spatial_dims": dims})
    split, model = MaskSplit(5, [size], card=card), PixelNet(classes, dims)
    whole, windows = Recipe(batch_size=2), Recipe(batch_size=3, crop_size=crop)
    images = torch.stack([split[i][0] for i in range(5)])
    expected, found = (SegmentationTask(model, card, r).eval().logits(images) for r in (whole, windows))
    assert expected.shape == (5, classes, *size)
    torch.testing.assert_close(found, expected)
    one, other = (evaluate(model, card, split, recipe=r) for r in (whole, windows))
    np.testing.assert_array_equal(one[0]["said"], other[0]["said"])
    np.testing.assert_array_equal(one[0]["hd95"], other[0]["hd95"])
    assert one[0]["said"].any()


@pytest.mark.parametrize("card", [MaskCard(), OVERLAPPING_CARD, IGNORING])
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
def test_evaluate_and_segment_agree(card: MaskCard, several: bool, precision: str) -> None:
    reseed(1)
    split = MaskSplit(7, [(10, 9), (12, 7)] if several else [(10, 9)], card=card)
    model, machine = MaskNet(len(card.classes)), Machine(precision=precision)
    recipe = Recipe(batch_size=4, crop_size=8 if several else None)
    arrays, _ = evaluate(model, card, split, recipe=recipe, machine=machine)
    masks = list(segment(model, card, split, recipe=recipe, machine=machine))
    assert [index for index, _ in masks] == list(range(7))
    truths = list(split.targets)
    planes = [(m.astype(bool), t.astype(bool)) for (_, m), t in zip(masks, truths, strict=True)]
    if not card.overlapping:
        planes = [
            (np.stack([m == 1, m == 2]), np.stack([t == 1, t == 2])) for (_, m), t in zip(masks, truths, strict=True)
        ]
    counted = [np.ones_like(t[:1]) if card.overlapping else (t != IGNORE)[None] for t in truths]
    pixels = lambda x: x.reshape(2, -1).sum(1)  # noqa: E731
    for i, ((said, true), counts) in enumerate(zip(planes, counted, strict=True)):
        assert arrays["true"][i].tolist() == pixels(true).tolist()
        assert arrays["said"][i].tolist() == pixels(said & (counts > 0)).tolist()
        assert arrays["hit"][i].tolist() == pixels(said & true).tolist()
        if card.ignore_label is not None:
            assert arrays["said_unmasked"][i].tolist() == pixels(said).tolist()
    assert arrays["said"].sum() > 0
    assert ("said_unmasked" in arrays) == (card.ignore_label is not None)


@pytest.mark.parametrize("card", [MaskCard(), OVERLAPPING_CARD])
def test_masks_of_other_sizes(card: MaskCard) -> None:
    """Scores are interpolated before the decision; the size that an image has anyway changes nothing."""
    split, model, recipe = MaskSplit(3, card=card), MaskNet(len(card.classes)), Recipe(batch_size=2)
    own = list(segment(model, card, split, recipe=recipe))
    same = list(segment(model, card, split, recipe=recipe, sizes=split.sizes))
    sizes = [(20, 18), (5, 4), (1, 30)]
    other = [mask for _, mask in segment(model, card, split, recipe=recipe, sizes=sizes)]
    for (_, a), (_, b) in zip(own, same, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [mask.shape for mask in other] == [(*(2,) * card.overlapping, *size) for size in sizes]
    assert all(mask.dtype == np.uint8 for mask in other)


def test_masks_leave_no_mode_behind() -> None:
    """Whoever takes the masks one by one may train meanwhile, and may stop."""
    masks = segment(MaskNet(), MaskCard(), MaskSplit(6), recipe=Recipe(batch_size=2), machine=Machine())
    next(masks)
    assert not torch.is_inference_mode_enabled()
    weight = torch.ones(2, requires_grad=True)
    (weight * 2).sum().backward()
    del masks
    assert not torch.is_autocast_enabled("cpu")


def test_outputs_are_a_few_numbers_a_case() -> None:
    """No scores of pixels are kept while a split is predicted."""
    card, split = MaskCard(), MaskSplit(4)
    task = SegmentationTask(MaskNet(), card, Recipe()).eval()
    images, masks, numbers = (torch.stack([torch.as_tensor(split[i][j]) for i in range(4)]) for j in range(3))
    task.spacing = [None] * 4
    found = task.predict_step((images, masks, numbers), 0)
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "losses": (4,),
        **dict.fromkeys(("true", "said", "hit", "hd95"), (4, 2)),
    }
