"""What the tests of resuming run in child processes, which may be killed at a chosen place."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch

from mixlab.training.determinism import INITIAL_WEIGHTS, reseed
from mixlab.training.files import write_json
from mixlab.training.machine import Machine
from mixlab.training.recipe import Recipe
from tests.training.toys import ToyCard, ToyNet, toy_splits

RECIPE = Recipe(epochs=4, batch_size=8, warmup_epochs=1, accumulate=2, clip_norm=1.0, flips=True, ema_decay=0.9)
STEPS = 6  # batches an epoch


class DeadlyNet(ToyNet):
    """Kills its process, as ``kill -9`` does, in the given forward pass of the training."""

    def __init__(self, kill_at: int | None) -> None:
        super().__init__()
        self.left = kill_at

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and self.left is not None:
            self.left -= 1
            if self.left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)


def train_child(folder: Path, workers: int, kill_batch: int | None, kill_epoch: int | None) -> None:
    """Train the toy in ``folder``; kill this process in a batch, or between validation and checkpoint of an epoch."""
    from mixlab.training.checkpoint import load_best
    from mixlab.training.fit import fit, predict

    torch.set_num_threads(1)
    reseed(5, INITIAL_WEIGHTS)
    model = DeadlyNet(kill_batch)
    records: list[dict[str, Any]] = []

    def on_epoch(record: dict[str, Any]) -> None:
        if record["epoch"] == kill_epoch:
            os.kill(os.getpid(), signal.SIGKILL)
        records.append(record)

    splits, machine = toy_splits(), Machine(workers=workers)
    fit(model, ToyCard(), splits, RECIPE, seed=5, folder=folder, machine=machine, on_epoch=on_epoch)
    load_best(folder, model)
    found = predict(model, ToyCard(), splits["test"], batch_size=8, machine=machine)
    torch.save({"probabilities": torch.from_numpy(found["probabilities"]), "loss": found["loss"]}, folder / "test.pt")
    write_json(folder / "records.json", records)
