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
    """The best epoch so far, by validation macro F1; of equal epochs the earlier one."""

    epoch: int = 0
    macro_f1: float = -1.0

    def offer(self, epoch: int, macro_f1: float) -> bool:
        """Take an epoch if it is better; says whether it was."""
        if macro_f1 <= self.macro_f1:
            return False
        self.epoch, self.macro_f1 = epoch, macro_f1
        return True

    def to_plain(self) -> dict[str, Any] | None:
        """For ``status.json``; None before the first validation."""
        return {"epoch": self.epoch, "macro_f1": self.macro_f1} if self.epoch else None


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
    return Resume(path, state["epoch"], Best(**state["best"]), content["global_step"])


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
