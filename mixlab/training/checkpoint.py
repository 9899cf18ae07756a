"""Checkpoints of a run: ``last.ckpt`` to resume from, ``best.ckpt`` to evaluate."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mixlab.training.files import write_atomically

LAST, BEST = "last.ckpt", "best.ckpt"


@dataclass
class Best:
    """The best epoch so far, by a validation metric; of equal epochs the earlier one.

    Args:
        metric: its name, of which more is better.
        epoch: from 1; 0 before the first validation.
        value: of the metric.
    """

    metric: str = "macro_f1"
    epoch: int = 0
    value: float = -1.0

    def offer(self, epoch: int, value: float | None) -> bool:
        """Take an epoch if it is better; says whether it was. The first one is, even where the metric is not defined
        (None, as Dice where no case has a structure), so that there are weights to evaluate."""
        value = -1.0 if value is None else value
        if self.epoch and value <= self.value:
            return False
        self.epoch, self.value = epoch, value
        return True

    def to_plain(self) -> dict[str, Any] | None:
        """For ``status.json`` and checkpoints; None before the first validation."""
        value = None if self.value < 0 else self.value
        return {"epoch": self.epoch, self.metric: value} if self.epoch else None

    @classmethod
    def of(cls, plain: dict[str, Any] | None) -> Best:
        """What :meth:`to_plain` gave."""
        if plain is None:
            return cls()
        ((metric, value),) = [item for item in plain.items() if item[0] != "epoch"]
        return cls(metric, plain["epoch"], -1.0 if value is None else value)


@dataclass(frozen=True)
class Resume:
    """What ``last.ckpt`` says of the training so far.

    Attributes:
        epoch: epochs that are complete.
        best: the best of them.
        step: optimiser steps taken.
    """

    path: Path
    epoch: int
    best: Best
    step: int


# The key of our callback in a Lightning checkpoint.
STATE_KEY = "mixlab.EpochEnd"


def read_resume(folder: Path) -> Resume | None:
    """Read how far a training came, or None when it has no checkpoint yet."""
    path = folder / LAST
    if not path.exists():
        return None
    # mmap: the weights are not read, only the few numbers wanted here.
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    state = content["callbacks"][STATE_KEY]
    return Resume(path, state["epoch"], Best.of(state["best"]), content["global_step"])


def save_best(folder: Path, model: nn.Module, *, epoch: int, metrics: dict[str, Any]) -> None:
    """Write the weights of ``model`` as the best ones."""
    content = {"model": model.state_dict(), "epoch": epoch, "metrics": metrics}
    write_atomically(folder / BEST, lambda file: torch.save(content, file))


def load_best(folder: Path, model: nn.Module) -> int:
    """Load the best weights into ``model``; returns their epoch."""
    content = torch.load(folder / BEST, map_location="cpu", weights_only=True)
    model.load_state_dict(content["model"])
    return int(content["epoch"])


def save_last(trainer: Any, folder: Path) -> None:
    """Write Lightning's full checkpoint (weights, optimiser, schedule, counters) atomically."""
    temporary = folder / f".{LAST}.tmp"
    trainer.save_checkpoint(temporary)
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, folder / LAST)
