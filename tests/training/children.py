"""What the tests of resuming run in child processes, which may be killed at a chosen place."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mixlab.training.determinism import INITIAL_WEIGHTS, reseed
from mixlab.training.files import write_json
from mixlab.training.machine import Machine
from mixlab.training.recipe import Recipe
from tests.training.toys import ToyCard, ToyNet, toy_splits
from tests.training.toys_masks import MaskCard, MaskNet, mask_splits

RECIPE = Recipe(epochs=4, batch_size=8, warmup_epochs=1, accumulate=2, clip_norm=1.0, flips=True, ema_decay=0.9)
STEPS = 6  # batches an epoch


MASK_RECIPE = Recipe(
    epochs=3, batch_size=8, warmup_epochs=1, accumulate=2, clip_norm=1.0, flips=True, ema_decay=0.9, crop_size=[8, 7],
    crops_per_image=2, head_dropout=0.2,
)  # fmt: skip
MASK_STEPS = 6  # batches of 42 crops an epoch
SIZES = [(10, 9), (7, 12), (11, 6)]


def deadly(model: nn.Module, kill_at: int | None) -> nn.Module:
    """A model that kills its process, as ``kill -9`` does, in the given forward pass of the training."""
    left = itertools.count(0 if kill_at is None else kill_at, -1)

    def count(module: nn.Module, _: Any) -> None:
        if module.training and kill_at is not None and next(left) <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    model.register_forward_pre_hook(count)
    return model


def train_child(
    folder: Path, workers: int, kill_batch: int | None, kill_epoch: int | None, masks: bool = False
) -> None:
    """Train a toy in ``folder``; kill this process in a batch, or between validation and checkpoint of an epoch."""
    from mixlab.training.checkpoint import load_best
    from mixlab.training.fit import evaluate, fit

    torch.set_num_threads(1)
    reseed(5, INITIAL_WEIGHTS)
    card: Any = MaskCard() if masks else ToyCard()
    splits: dict[str, Any] = {**mask_splits(SIZES)} if masks else {**toy_splits()}
    recipe, model = MASK_RECIPE if masks else RECIPE, deadly(MaskNet() if masks else ToyNet(), kill_batch)
    records: list[dict[str, Any]] = []

    def on_epoch(record: dict[str, Any]) -> None:
        if record["epoch"] == kill_epoch:
            os.kill(os.getpid(), signal.SIGKILL)
        records.append(record)

    machine = Machine(workers=workers)
    fit(model, card, splits, recipe, seed=5, folder=folder, machine=machine, on_epoch=on_epoch)
    load_best(folder, model)
    arrays, metrics = evaluate(model, card, splits["test"], recipe=recipe, machine=machine)
    found = {name: torch.from_numpy(values) for name, values in arrays.items()}
    torch.save({**found, "loss": metrics["loss"]}, folder / "test.pt")
    write_json(folder / "records.json", records)
