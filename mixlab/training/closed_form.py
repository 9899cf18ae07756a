"""Models that are fitted to the training split at once instead of step by step, such as ``intensity``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mixlab.data.card import structures
from mixlab.training.checkpoint import Best, save_best
from mixlab.training.loaders import eval_loader
from mixlab.training.machine import Machine
from mixlab.training.recipe import Recipe
from mixlab.training.segmentation import SegmentationTask
from mixlab.training.selection import SELECTS
from mixlab.training.task import collect
from mixlab.training.trainer import run_batches


def is_fitted_at_once(model: nn.Module) -> bool:
    """Whether a model has ``fit_to`` (see :meth:`mixlab.baselines.intensity.Intensity.fit_to`)."""
    return hasattr(model, "fit_to")


def fit_at_once(
    model: Any, card: Any, splits: Mapping[str, Any], recipe: Recipe, folder: Path, machine: Machine
) -> tuple[Best, dict[str, Any]]:
    """Fit a model to the training split and write it as the best; returns that and a line of metrics.

    Nothing of a recipe counts but the loss, which is only told, and the batch size: there are no steps, no crops and no
    augmentation.
    """
    began = time.perf_counter()
    task = SegmentationTask(model, card, Recipe(loss=recipe.loss, batch_size=recipe.batch_size))

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for images, masks, _ in eval_loader(splits["train"], task.recipe, machine):
            planes = task.planes(masks, range(len(card.classes)))
            yield task.prepare(images), planes

    model.fit_to(batches, structures(card), overlapping=card.overlapping)
    losses = {split: collect(run_batches(task, splits[split], machine)) for split in ("train", "val")}
    found = task.metrics(losses["val"])
    best = Best(SELECTS[card.task])
    best.offer(1, found[best.metric])
    save_best(folder, model, epoch=1, metrics=found)
    line = {
        "epoch": 1,
        "step": 0,
        "lr": 0.0,
        "train/loss": losses["train"]["loss"],
        **{f"val/{name}": found[name] for name in task.followed},
        "seconds": time.perf_counter() - began,
    }
    return best, line
