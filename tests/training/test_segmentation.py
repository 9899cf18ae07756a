"""Training on toy masks: it learns in every dimension and form of mask, and what it says of itself is true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mixlab.data.masks import IGNORE
from mixlab.training.checkpoint import load_best
from mixlab.training.determinism import reseed
from mixlab.training.fit import FitResult, evaluate, fit
from mixlab.training.guard import Diverged
from mixlab.training.machine import Machine
from mixlab.training.recipe import Recipe
from mixlab.training.segment import segment
from mixlab.training.segmentation import SegmentationTask
from tests.training.toys_masks import OVERLAPPING_CARD, MaskCard, MaskNet, MaskSplit, PixelNet, mask_splits

#: A short training without anything random but order and initial weights.
PLAIN: dict[str, Any] = {"batch_size": 4, "warmup_epochs": 1, "learning_rate": 1e-2, "affine_std": 0.0}
IGNORING = MaskCard(ignore_label=IGNORE)


def train(
    folder: Path,
    recipe: Recipe,
    model: nn.Module | None = None,
    card: MaskCard | None = None,
    splits: Any = None,
    **options: Any,
) -> tuple[FitResult, list[dict[str, Any]]]:
    folder.mkdir(exist_ok=True)
    reseed(0, 0)
    records: list[dict[str, Any]] = []
    result = fit(
        model or MaskNet(), card or MaskCard(), splits or mask_splits(), recipe, seed=0, folder=folder,
        on_epoch=records.append, **options,
    )  # fmt: skip
    return result, records


def constant_dice(split: MaskSplit, card: MaskCard) -> float:
    """The best Dice of an answer that is the same for all pixels."""
    structures = [k for k in range(len(card.classes)) if card.overlapping or k != card.background]
    pixels = np.array([np.prod(size) for size in split.sizes])
    true = split.targets.counts()[:, structures]
    each = (2 * true / (true + pixels[:, None])).mean(0)
    return float(each.mean() if card.overlapping else each.max() / len(structures))


@pytest.mark.parametrize(
    ("size", "card"),
    [
        ((24,), MaskCard(spatial_dims=1)),
        ((10, 9), MaskCard()),
        ((6, 7, 6), MaskCard(spatial_dims=3)),
        ((10, 9), OVERLAPPING_CARD),
        ((10, 9), IGNORING),
    ],
)
def test_it_learns(size: tuple[int, ...], card: MaskCard, tmp_path: Path) -> None:
    splits = mask_splits([size], card=card)
    model = MaskNet(len(card.classes), card.spatial_dims, dropout=0.0)
    recipe = Recipe(epochs=8, class_weights="none", **{**PLAIN, "affine_std": 0.02, "learning_rate": 2e-2})
    result, records = train(tmp_path, recipe, model, card, splits)
    assert result.best.value > max(0.75, 2 * constant_dice(splits["val"], card))
    best = max(records, key=lambda r: r["val/dice"])
    assert (result.best.metric, result.best.epoch, result.best.value) == ("dice", best["epoch"], best["val/dice"])
    assert load_best(tmp_path, model) == best["epoch"]
    _, metrics = evaluate(model, card, splits["val"], recipe=recipe)
    assert metrics["dice"] == best["val/dice"]
    assert metrics["loss"] == pytest.approx(best["val/loss"])


def test_the_best_epoch_is_that_of_dice_not_of_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter([0.2, 0.9, 0.9, 0.4])
    metrics = SegmentationTask.metrics
    monkeypatch.setattr(SegmentationTask, "metrics", lambda self, found: metrics(self, found) | {"dice": next(told)})
    result, records = train(tmp_path, Recipe(epochs=4, **PLAIN))
    assert records[3]["val/loss"] < records[1]["val/loss"]
    assert (result.best.epoch, result.best.value) == (2, 0.9)
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["epoch"] == 2


def test_values_of_ignored_pixels_change_no_training(tmp_path: Path) -> None:
    """The truth under the ignored row is not known: what stands in the image there moves statistics of norms only."""
    weights = []
    for value in (0.1, 0.9):
        splits = mask_splits(card=IGNORING)
        for image in splits["train"].images:
            image[:, -1] = value
        torch.manual_seed(0)
        model = PixelNet()
        train(tmp_path / str(value), Recipe(epochs=2, **PLAIN), model, IGNORING, splits)
        weights.append(model.state_dict())
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)


@pytest.mark.parametrize("card", [MaskCard(), OVERLAPPING_CARD, MaskCard(background=None), IGNORING])
@pytest.mark.parametrize("crop", [8, [12, 5]])
def test_images_of_several_sizes_with_crops(card: MaskCard, crop: Any, tmp_path: Path) -> None:
    sizes = [(10, 9), (7, 13), (6, 6)]
    splits = mask_splits(sizes, card=card, spacing=(2.0, 0.5), groups=2)
    recipe = Recipe(epochs=1, crop_size=crop, crops_per_image=2, flips=True, **{**PLAIN, "affine_std": 0.05})
    model = MaskNet(len(card.classes))
    _, records = train(tmp_path, recipe, model, card, splits)
    assert records[0]["step"] == 11  # 42 crops in batches of 4; the two of the last one count
    arrays, metrics = evaluate(model, card, splits["test"], recipe=recipe)
    assert arrays["true"].shape == (5, len(card.classes) - (card.background is not None))
    assert metrics["hd95_unit"] == "mm"
    assert arrays["groups"].tolist() == ["patient 0", "patient 0", "patient 1", "patient 1", "patient 2"]
    assert [mask.shape[-2:] for _, mask in segment(model, card, splits["test"], recipe=recipe)] == [
        sizes[i % 3] for i in range(5)
    ]


def test_moving_average_accumulation_and_clipping(tmp_path: Path) -> None:
    """The averaged weights are validated, saved and give the score of their epoch."""
    model, card, splits = MaskNet(), MaskCard(), mask_splits()
    recipe = Recipe(epochs=2, ema_decay=0.9, accumulate=2, clip_norm=1.0, **PLAIN)
    result, records = train(tmp_path, recipe, model, card, splits)
    assert records[-1]["step"] == result.steps == 6
    trained = {k: v.clone() for k, v in model.state_dict().items()}
    load_best(tmp_path, model)
    assert any(not torch.equal(trained[k], v) for k, v in model.state_dict().items())
    _, metrics = evaluate(model, card, splits["val"], recipe=recipe)
    assert metrics["dice"] == records[result.best.epoch - 1]["val/dice"]


@pytest.mark.parametrize("card", [MaskCard(), OVERLAPPING_CARD])
def test_class_weights_follow_the_pixels(card: MaskCard) -> None:
    split = MaskSplit(6, card=card)
    task = SegmentationTask(MaskNet(len(card.classes)), card, Recipe(class_weights="balanced"), train=split)
    counts, pixels = split.targets.counts().sum(0), 6 * 90
    want = pixels / counts - 1 if card.overlapping else pixels / (3 * counts)
    assert task.class_weights is not None
    assert task.class_weights.tolist() == pytest.approx(want.tolist())
    images, masks, _ = (torch.stack([torch.as_tensor(split[i][j]) for i in range(6)]) for j in range(3))
    task.eval()
    weighted = task.training_loss(images, masks)
    task.class_weights = None
    assert weighted != task.training_loss(images, masks)


@pytest.mark.parametrize("card", [MaskCard(), OVERLAPPING_CARD])
def test_weights_of_what_does_not_occur_are_one(card: MaskCard) -> None:
    split = MaskSplit(3, card=card, box=0)
    task = SegmentationTask(MaskNet(len(card.classes)), card, Recipe(class_weights="balanced"), train=split)
    assert task.class_weights is not None
    assert task.class_weights.tolist() == ([1, 1] if card.overlapping else [pytest.approx(1 / 3), 1, 1])


class Poisoned(MaskNet):
    """Infinite scores after some training batches."""

    left = 3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.left -= self.training
        return super().forward(x) * (torch.inf if self.left < 0 else 1.0)


def test_a_model_that_diverges_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"step 3 \(epoch 1\): loss"):
        train(tmp_path, Recipe(epochs=1, **PLAIN), Poisoned())


def test_a_model_that_diverges_in_validation_is_stopped(tmp_path: Path) -> None:
    model = Poisoned()
    model.left = 5  # an epoch has five batches
    forward = model.forward
    model.forward = lambda x: forward(x) * (1.0 if model.training else torch.nan)  # type: ignore[method-assign]
    with pytest.raises(Diverged, match=r"epoch 1\): validation output"):
        train(tmp_path, Recipe(epochs=1, **PLAIN), model)


def test_dice_that_is_not_defined_still_trains(tmp_path: Path) -> None:
    """No structure anywhere, and none predicted: the first epoch's weights are kept, and early stopping counts on."""
    model, splits = PixelNet(), mask_splits(box=0)
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([9.0, -9.0, -9.0]))  # type: ignore[operator]
    result, records = train(tmp_path, Recipe(epochs=9, early_stopping=2, **PLAIN), model, splits=splits)
    assert [r["val/dice"] for r in records] == [None] * 3
    assert (result.best.epoch, result.best.value, result.stopped_early) == (1, -1.0, True)
    assert load_best(tmp_path, model) == 1
    arrays, metrics = evaluate(model, MaskCard(), splits["test"], recipe=Recipe())
    assert not arrays["true"].any()
    assert not arrays["said"].any()
    assert (metrics["dice"], metrics["hd95"], metrics["cases_without"]) == (None, None, [5, 5])


def test_double_precision_with_class_weights(tmp_path: Path) -> None:
    for card, name in ((MaskCard(), "a"), (OVERLAPPING_CARD, "b")):
        recipe = Recipe(epochs=1, **PLAIN)
        assert recipe.class_weights == "balanced"
        model = MaskNet(len(card.classes))
        _, records = train(
            tmp_path / name, recipe, model, card, mask_splits(card=card), machine=Machine(precision="64-true")
        )
        assert np.isfinite(records[0]["train/loss"])
        assert model.head[1].weight.dtype == torch.float64


def test_a_frozen_encoder_and_dropout_of_the_decoder(tmp_path: Path) -> None:
    model = MaskNet()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    train(tmp_path, Recipe(epochs=1, freeze_backbone=True, head_dropout=0.4, **PLAIN), model)
    assert model.head[0].p == 0.4
    moved = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(before[name], value)}
    assert moved == {"head"}
