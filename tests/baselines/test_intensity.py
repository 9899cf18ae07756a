"""The baseline that sees intensity alone: its table is as good as any, and it goes through a study as other models."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import mixlab
from mixlab.baselines import make_baseline
from mixlab.baselines.intensity import LEVELS, Intensity, assigned, marked
from mixlab.data import open_data
from mixlab.errors import UserError
from mixlab.studies.evaluation import evaluate_run, load_run
from mixlab.training.fit import evaluate, fit
from mixlab.training.recipe import Recipe
from mixlab.training.segment import segment
from tests.studies.mask_folders import KINDS
from tests.studies.small import runs_by_label, study, train
from tests.training.toys_masks import OVERLAPPING_CARD, MaskCard, MaskSplit, mask_splits

Counts = NDArray[np.int64]


def pooled_dice(present: Counts, planes: NDArray[Any]) -> list[float]:
    """Dice of each class, all pixels pooled, of a table of planes ``(K, levels)``."""
    hit, true = (present * planes).sum(1), present.sum(1)
    said = (present.sum(0) * planes).sum(1)
    return [float(2 * h / max(1, t + s)) for h, t, s in zip(hit, true, said, strict=True)]


def histogram(rng: np.random.Generator, centres: list[float], counts: list[int], spread: float) -> Counts:
    """Pixels of each class at each level, of bell curves that overlap."""
    return np.stack(
        [
            np.bincount(rng.normal(c, spread, n).round().clip(0, LEVELS - 1).astype(int), minlength=LEVELS)
            for c, n in zip(centres, counts, strict=True)
        ]
    )


def by_thresholds(present: Counts, structures: list[int], classes: tuple[int, ...]) -> float:
    """The best mean Dice of two thresholds that cut the levels into three parts of these classes, in steps of four."""
    best = 0.0
    for low, high in itertools.combinations(range(0, LEVELS, 4), 2):
        levels = np.repeat(classes, [low, high - low, LEVELS - high])
        dice = pooled_dice(present, levels == np.arange(len(present))[:, None])
        best = max(best, float(np.mean([dice[k] for k in structures])))
    return best


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spread", [20.0, 45.0])
def test_no_pair_of_thresholds_is_better(seed: int, spread: float) -> None:
    """One structure between two parts of the background: exactly the best set of levels."""
    rng = np.random.default_rng(seed)
    parts = histogram(rng, [60, 200, 125], [3000, 2500, 400], spread)
    present = np.stack([parts[0] + parts[1], parts[2]])
    table = assigned(present, [1])
    assert (table.sum(0) == 1).all()
    assert pooled_dice(present, table)[1] >= by_thresholds(present, [1], (0, 1, 0)) - 1e-12


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("spread", [15.0, 30.0, 50.0])
def test_no_pair_of_thresholds_is_better_for_two_structures(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    present = histogram(rng, [90, 125, 160], [4000, 900, 300], spread)
    found = float(np.mean(pooled_dice(present, assigned(present, [1, 2]))[1:]))
    assert found >= by_thresholds(present, [1, 2], (0, 1, 2)) - 1e-12


def test_a_single_structure_has_the_best_of_all_sets_of_levels() -> None:
    for seed in range(20):
        present = np.random.default_rng(seed).integers(0, 9, (2, 7))
        best = max(
            pooled_dice(present, np.array([[1 - x for x in bits], bits]))[1]
            for bits in itertools.product((0, 1), repeat=7)
        )
        assert pooled_dice(present, assigned(present, [1]))[1] == pytest.approx(best)


def test_overlapping_structures_have_the_best_of_all_sets_of_levels() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        pixels = rng.integers(0, 12, 6)
        present = np.stack([rng.integers(0, pixels + 1) for _ in range(3)])
        for own, plane in zip(present, marked(present, pixels), strict=True):

            def dice(bits: Any, own: Counts = own, pixels: Counts = pixels) -> float:
                chosen = np.array(bits)
                return float(2 * (own * chosen).sum() / max(1, own.sum() + (pixels * chosen).sum()))

            assert dice(plane) == pytest.approx(max(map(dice, itertools.product((0, 1), repeat=6))))


def test_a_structure_that_never_occurs_is_never_said() -> None:
    present = np.array([[5, 3, 0, 2], [0, 0, 0, 0]])
    assert not assigned(present, [1])[1].any()
    assert not marked(present, present.sum(0))[1].any()


def model(classes: int, dims: int = 2, channels: int = 1) -> Intensity:
    made = make_baseline("intensity", num_classes=classes, in_channels=channels, spatial_dims=dims, options={})
    assert isinstance(made, Intensity)
    return made


def test_ignored_pixels_are_not_looked_at() -> None:
    """Bright pixels are ignored, however many: grey ones alone decide."""
    x = torch.tensor([[[0.0, 0.5, 0.5, 1.0, 1.0, 1.0]]])
    truth = torch.tensor([[0, 1, 1, 255, 255, 255]])
    planes = torch.stack([truth == 0, truth == 1], dim=1)
    found = model(2, dims=1)
    found.fit_to(lambda: [(x, planes)], [1], overlapping=False)
    assert found(x).argmax(1).tolist()[0][:3] == [0, 1, 1]
    assert found.table.sum(0).tolist() == [1.0] * LEVELS


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_levels_are_those_of_the_mean_of_the_channels(dims: int, channels: int) -> None:
    found, x = model(2, dims, channels), torch.rand(2, channels, *(5, 4, 3)[:dims])
    levels = found.levels(x)
    assert levels.shape == (2, *x.shape[2:])
    assert torch.equal(levels, (x.mean(1) * LEVELS).long().clamp(0, LEVELS - 1))
    assert found(x).shape == (2, 2, *x.shape[2:])
    assert found.levels(x * 5).max() == LEVELS - 1
    assert found.levels(x - 9).min() == 0


@pytest.mark.parametrize("card", [MaskCard(), OVERLAPPING_CARD, MaskCard(ignore_label=255)])
@pytest.mark.parametrize("sizes", [[(10, 9)], [(10, 9), (7, 12)]])
def test_it_is_fitted_in_one_pass(card: MaskCard, sizes: list[tuple[int, ...]], tmp_path: Path) -> None:
    """Boxes that differ in brightness are found; the seed, crops and augmentation change nothing."""
    splits, tables = mask_splits(sizes, card=card), []
    for seed in (0, 1):
        found = model(len(card.classes))
        records: list[dict[str, Any]] = []
        recipe = Recipe(batch_size=4, epochs=50, crop_size=6 if seed else None)
        result = fit(found, card, splits, recipe, seed=seed, folder=tmp_path, on_epoch=records.append)
        assert (result.epochs, result.steps, result.best.epoch, len(records)) == (1, 0, 1, 1)
        assert records[0]["val/dice"] == result.best.value
        tables.append(found.table.clone())
        assert found.range.tolist() == pytest.approx([extreme(splits["train"], f) for f in (min, max)])
    assert torch.equal(*tables)
    assert result.best.value > (0.5 if card.overlapping else 0.75)
    _, metrics = evaluate(found, card, splits["val"], recipe=Recipe(batch_size=4))
    assert metrics["dice"] == result.best.value


def extreme(split: MaskSplit, choose: Any) -> float:
    """Least or largest intensity, normalised as the card says."""
    return float((choose(float(choose(*(image.min(), image.max()))) for image in split.images) - 0.5) / 0.25)


def test_images_of_one_grey_level() -> None:
    """Nothing can be told apart: a table all the same."""
    found, x = model(2), torch.full((1, 1, 3, 3), 0.25)
    truth = torch.zeros(1, 3, 3, dtype=torch.long)
    truth[0, 0] = 1
    found.fit_to(lambda: [(x, torch.stack([truth == 0, truth == 1], 1))], [1], overlapping=False)
    assert torch.isfinite(found(x)).all()
    assert (found(x).argmax(1) == 1).all(), "a third of the pixels: to say it everywhere is the best there is"


def test_it_is_a_dense_model_without_parameters() -> None:
    made = mixlab.create_model("intensity", num_classes=3, in_channels=1)
    assert made.dense
    assert not list(made.parameters())
    assert made(torch.rand(2, 1, 1, 5)).shape == (2, 3, 1, 5)
    with pytest.raises(UserError, match="model intensity input: expected shape"):
        made(torch.rand(2, 3, 4, 5))
    with pytest.raises(UserError, match="features_only"):
        mixlab.create_model("intensity", num_classes=3, in_channels=1, features_only=True)


@pytest.mark.parametrize("kind", ["plain", "overlapping"])
def test_beside_a_mixer_in_a_study(kind: str, tmp_path: Path) -> None:
    """Equal over seeds; evaluated and predicted with after loading."""
    data = KINDS[kind](tmp_path / "data")
    recipe = {"preset": "segmentation-short", "epochs": 1, "batch_size": 4}
    dense = {"name": "metaformer_nano", "decoder": {"name": "segformer", "width": 8}}
    mixers = ["identity"] if kind == "plain" else []
    grid = study(tmp_path, mixers, baselines=["intensity"], data=[vars(data)], model=dense, recipe=recipe, seeds=2)
    result, text = train(grid, tmp_path / "out")
    assert result.states == {"finished": 4 if mixers else 2}, text
    folders = sorted((tmp_path / "out" / "runs").glob("intensity-*"))
    summaries = [runs.summary() for path in folders if (runs := load_run(path).folder)]
    assert len(summaries) == 2
    assert summaries[0] is not None
    assert summaries[1] is not None
    assert summaries[0]["test"] == summaries[1]["test"]
    assert summaries[0]["test"]["dice"] > 0.2
    assert "intensity" in runs_by_label(tmp_path / "out")
    assert any("fitted to the training split at once" in event["message"] for event in summaries[0]["events"])
    again = evaluate_run(folders[0], device="cpu")
    assert {name: again[name] for name in summaries[0]["test"]} == summaries[0]["test"]
    run, split = load_run(folders[0]), open_data(data).splits["test"]
    with np.load(folders[0] / "predictions_test.npz") as file:
        for index, mask in segment(run.model, run.card, split, recipe=run.config.recipe):
            planes = mask if run.card.overlapping else np.stack([mask == k for k in (1, 2)])
            assert planes.reshape(2, -1).sum(1).tolist() == file["said"][index].tolist()


def test_tables_differ_where_the_data_do() -> None:
    """The table is a buffer: it travels with the state dict."""
    first, second = model(2), model(2)
    x = torch.linspace(0, 1, 12).reshape(1, 1, 3, 4)
    for made, truth in ((first, x[:, 0] > 0.5), (second, x[:, 0] < 0.2)):
        made.fit_to(lambda t=truth: [(x, torch.stack([~t, t], 1))], [1], overlapping=False)  # type: ignore[misc]

    def said(made: Intensity) -> Tensor:
        return made(x).argmax(1).bool()

    assert torch.equal(said(first), x[:, 0] > 0.5)
    assert torch.equal(said(second), x[:, 0] < 0.2)
    second.load_state_dict(first.state_dict())
    assert torch.equal(said(second), x[:, 0] > 0.5)
