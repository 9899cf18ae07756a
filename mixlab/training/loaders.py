"""Loaders of batches ``(images, targets, indices)``."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from mixlab.training.determinism import SeededSplit
from mixlab.training.recipe import Recipe
from mixlab.training.sampler import EpochSampler, balancing_weights


def train_loader(
    split: Any, recipe: Recipe, *, seed: int, epoch: int = 0, workers: int = 0, pin_memory: bool = False
) -> DataLoader[Any]:
    """Batches of the training split, in the seeded order of each epoch.

    Args:
        split: an ImageSplit, which also gives ``targets``.
        epoch: the first epoch; more than 0 for a resumed run.
    """
    weights = balancing_weights(np.asarray(split.targets)) if recipe.sampler == "balanced" else None
    sampler = EpochSampler(len(split), recipe.batch_size, seed=seed, epoch=epoch, weights=weights)
    return DataLoader(SeededSplit(split, seed), batch_sampler=sampler, **_options(workers, pin_memory))


def eval_loader(split: Dataset[Any], batch_size: int, *, workers: int = 0, pin_memory: bool = False) -> DataLoader[Any]:
    """All images of a split in their own order; the last batch is never dropped."""
    return DataLoader(split, batch_size=batch_size, **_options(workers, pin_memory))


def _options(workers: int, pin_memory: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"num_workers": workers, "pin_memory": pin_memory, "persistent_workers": workers > 0}
    if workers > 0 and sys.platform == "linux":
        # A run is a child of a fork server and would start its workers by another one, which takes seconds each.
        options["multiprocessing_context"] = "fork"
    return options
