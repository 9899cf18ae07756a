"""Training on toy data: it learns, in every dimension and for every task, and stops where it must."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mixlab.errors import UserError
from mixlab.training.checkpoint import load_best, read_resume
from mixlab.training.checks import check_recipe
from mixlab.training.determinism import reseed
from mixlab.training.fit import FitResult, fit, predict
from mixlab.training.guard import Diverged
from mixlab.training.machine import Machine, choose_precision
from mixlab.training.recipe import Recipe
from tests.training.toys import ToyCard, ToyNet, toy_splits


def train(
    folder: Path, recipe: Recipe, model: nn.Module | None = None, card: Any = None, splits: Any = None
) -> tuple[FitResult, list[dict[str, Any]]]:
    reseed(0, 0)
    records: list[dict[str, Any]] = []
    result = fit(
        model or ToyNet(),
        card or ToyCard(),
        splits or toy_splits(),
        recipe,
        seed=0,
        folder=folder,
        on_epoch=records.append,
    )
    return result, records


@pytest.mark.parametrize("size", [(19,), (11, 9), (5, 6, 7)])
def test_it_learns_in_every_dimension(size: tuple[int, ...], tmp_path: Path) -> None:
    dims = len(size)
    splits = toy_splits(size=size)
    recipe = Recipe(epochs=15, batch_size=8, learning_rate=1e-2, affine_std=0.02, warmup_epochs=1)
    model = ToyNet(spatial_dims=dims, dropout=0.0)
    result, records = train(tmp_path, recipe, model, ToyCard(spatial_dims=dims), splits)
    assert result.epochs == 15 == len(records)
    assert result.best.value > 0.7
    best = max(records, key=lambda r: r["val/macro_f1"])
    assert (result.best.epoch, result.best.value) == (best["epoch"], best["val/macro_f1"])


def test_best_weights_give_the_validation_score_of_their_epoch(tmp_path: Path) -> None:
    model, card, splits = ToyNet(), ToyCard(), toy_splits()
    result, records = train(tmp_path, Recipe(epochs=6, batch_size=8, ema_decay=0.9), model)
    assert load_best(tmp_path, model) == result.best.epoch
    found = predict(model, card, splits["val"], batch_size=8)
    assert found["loss"] == pytest.approx(records[result.best.epoch - 1]["val/loss"], rel=1e-6)
    assert len(found["probabilities"]) == 33


def test_multilabel_trains_with_binary_losses(tmp_path: Path) -> None:
    splits = toy_splits(labels=4)
    card = ToyCard(task="multilabel", classes=("a", "b", "c", "d"))
    model = ToyNet(classes=4)
    _, records = train(tmp_path, Recipe(epochs=2, batch_size=8), model, card, splits)
    assert all(np.isfinite(r["val/auroc"]) for r in records)
    found = predict(model, card, splits["test"], batch_size=8)
    assert found["targets"].shape == found["probabilities"].shape == (20, 4)
    assert not np.allclose(found["probabilities"].sum(axis=1), 1)


def test_frozen_backbone_does_not_move_and_its_statistics_neither(tmp_path: Path) -> None:
    reseed(0, 0)
    model = ToyNet()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    train(tmp_path, Recipe(epochs=2, batch_size=8, freeze_backbone=True), model)
    after = torch.load(tmp_path / "best.ckpt", weights_only=True)["model"]
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"head"}


def test_early_stopping_stops_and_stays_stopped(tmp_path: Path) -> None:
    recipe = Recipe(epochs=50, batch_size=8, learning_rate=1e-9, warmup_rate=0, floor_rate=0, early_stopping=3)
    result, records = train(tmp_path, recipe)
    assert result.stopped_early
    assert len(records) == result.best.epoch + 3 < 50
    again, more = train(tmp_path, recipe)
    assert (again, more) == (result, [])


def test_of_equal_epochs_the_earlier_is_best(tmp_path: Path) -> None:
    recipe = Recipe(epochs=4, batch_size=8, learning_rate=1e-12, warmup_rate=0, floor_rate=0, affine_std=0)
    model = ToyNet()
    model.norm = nn.Identity()  # type: ignore[assignment]
    result, records = train(tmp_path, recipe, model)
    assert len({r["val/macro_f1"] for r in records}) == 1
    assert result.best.epoch == 1


class Poisoned(ToyNet):
    """Makes the loss, or one gradient, infinite at a given training batch."""

    def __init__(self, at: int, where: str) -> None:
        super().__init__()
        self.at, self.where = at, where

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        if self.training:
            self.at -= 1
            if self.at < 0 and self.where == "loss":
                return y * torch.inf
            if self.at < 0 and self.where == "gradient":
                self.stages[1].blocks[0].mix.bias.register_hook(lambda g: g * torch.inf)  # type: ignore[union-attr, index]
        elif self.where == "validation" and self.at < 0:
            return y * torch.nan
        return y


@pytest.mark.parametrize(
    ("where", "tensor"),
    [("loss", "loss"), ("gradient", "gradient of stages.1.blocks.0.mix.bias"), ("validation", "validation output")],
)
def test_what_is_not_finite_stops_the_run_before_the_step(where: str, tensor: str, tmp_path: Path) -> None:
    batch = 7 if where != "validation" else 12
    splits = toy_splits()
    model = Poisoned(batch, where)
    with pytest.raises(Diverged) as caught:
        fit(model, ToyCard(), splits, Recipe(epochs=5, batch_size=8), seed=0, folder=tmp_path)
    problem = caught.value
    assert problem.tensor == tensor
    assert (problem.step, problem.epoch) == ((7, 2) if where != "validation" else (18, 3))
    resume = read_resume(tmp_path)
    assert resume is not None
    assert resume.epoch == problem.epoch - 1
    assert all(torch.isfinite(v).all() for v in model.state_dict().values())


def test_a_class_that_a_split_lacks_is_no_problem(tmp_path: Path) -> None:
    splits = toy_splits()
    for name, split in splits.items():
        split.targets = np.minimum(split.targets, 1 if name == "train" else 2)
    _, records = train(tmp_path, Recipe(epochs=1, batch_size=8), splits=splits)
    assert np.isfinite(records[0]["val/loss"])


def test_head_dropout_needs_a_head_that_has_it(tmp_path: Path) -> None:
    model = ToyNet(dropout=0.0)
    train(tmp_path, Recipe(epochs=1, batch_size=8, head_dropout=0.4), model)
    assert model.head[0].p == 0.4
    bare = ToyNet()
    bare.head = nn.Linear(8, 3)  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"recipe\.head_dropout"):
        train(tmp_path / "bare", Recipe(head_dropout=0.4), bare)


def test_accumulated_batches_make_one_step(tmp_path: Path) -> None:
    result, records = train(tmp_path, Recipe(epochs=2, batch_size=8, accumulate=4))
    assert result.steps == records[-1]["step"] == 4  # six batches: steps after four and after six


@pytest.mark.parametrize(
    "options", [{"flips": True}, {"sampler": "balanced", "class_weights": "none"}, {"layer_decay": 0.5}]
)
def test_options_train(options: dict[str, Any], tmp_path: Path) -> None:
    result, _ = train(tmp_path, Recipe(epochs=1, batch_size=8, schedule_per="step", **options))
    assert result.steps == 6


def test_balanced_sampling_of_labels_is_refused() -> None:
    recipe = Recipe(sampler="balanced", class_weights="none")
    with pytest.raises(UserError, match=r"recipe\.sampler: expected shuffle"):
        check_recipe(recipe, ToyCard(task="multilabel"), ToyNet())


def test_bfloat16_on_request(tmp_path: Path) -> None:
    machine = Machine(precision="bf16-mixed")
    result = fit(ToyNet(), ToyCard(), toy_splits(), Recipe(epochs=1), seed=0, folder=tmp_path, machine=machine)
    assert np.isfinite(result.best.value)


def test_the_precision_of_a_cpu_is_full_unless_asked_for() -> None:
    assert choose_precision("auto", "cpu") == "32-true"
    assert choose_precision("bf16-mixed", "cpu") == "bf16-mixed"
    with pytest.raises(UserError, match="unknown precision"):
        choose_precision("bf61-mixed", "cpu")


def test_half_precision_is_refused_where_it_cannot_work() -> None:
    for device in ("cpu", "mps"):
        with pytest.raises(UserError, match=f"expected one that {device} has, got '16-mixed', try 32-true"):
            choose_precision("16-mixed", device)
    assert choose_precision("16-mixed", "cuda") == "16-mixed"
    for name in ("bf16-true", "16-true"):
        with pytest.raises(UserError, match=r"normalised in it.*try bf16-mixed"):
            choose_precision(name, "cuda")
