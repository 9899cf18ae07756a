"""Loaders of batches ``(images, targets, indices)``."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from mixlab.training.crops import RandomCrops, outside_of_masks
from mixlab.training.determinism import SeededSplit
from mixlab.training.machine import Machine
from mixlab.training.recipe import Recipe, sizes
from mixlab.training.sampler import EpochSampler, balancing_weights


def train_loader(
    split: Any, card: Any, recipe: Recipe, machine: Machine, *, seed: int, epoch: int = 0
) -> DataLoader[Any]:
    """Batches of the training split, in the seeded order of each epoch.

    Args:
        split: an ImageSplit, which also gives ``targets``.
        epoch: the first epoch; more than 0 for a resumed run.
    """
    weights = balancing_weights(np.asarray(split.targets)) if recipe.sampler == "balanced" else None
    crop = sizes(recipe.crop_size, card.spatial_dims)
    shown = split if crop is None else RandomCrops(split, crop, outside_of_masks(card), recipe.crops_per_image)
    sampler = EpochSampler(len(shown), recipe.batch_size, seed=seed, epoch=epoch, weights=weights)
    return DataLoader(SeededSplit(shown, seed), batch_sampler=sampler, **_options(machine))


def eval_loader(split: Any, recipe: Recipe, machine: Machine) -> DataLoader[Any]:
    """All images of a split in their own order; the last batch is never dropped. Images of several sizes come one by
    one, and so do those that windows slide over, as batches are made of windows."""
    several = recipe.crop_size is not None or len(set(getattr(split, "sizes", ()))) > 1
    return DataLoader(split, batch_size=1 if several else recipe.batch_size, **_options(machine))


def _options(machine: Machine) -> dict[str, Any]:
    workers, pin = machine.workers, machine.device == "cuda"
    options: dict[str, Any] = {"num_workers": workers, "pin_memory": pin, "persistent_workers": workers > 0}
    if workers > 0 and sys.platform == "linux":
        # A run is a child of a fork server and would start its workers by another one, which takes seconds each.
        options["multiprocessing_context"] = "fork"
    return options
