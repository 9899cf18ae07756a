"""The course of the learning rate."""

from __future__ import annotations

import math

import torch

from mixlab.training.recipe import Recipe


def rate_at(recipe: Recipe, progress: float, epochs: int) -> float:
    """Learning rate after ``progress`` of ``epochs`` epochs: linear warm-up, then cosine to the floor, or constant."""
    warmup = min(recipe.warmup_epochs, epochs // 2)
    peak = recipe.learning_rate
    if progress < warmup:
        return recipe.warmup_rate + (peak - recipe.warmup_rate) * progress / warmup
    if recipe.schedule == "constant":
        return peak
    share = min(1.0, (progress - warmup) / max(1e-12, epochs - warmup))
    return recipe.floor_rate + (peak - recipe.floor_rate) * 0.5 * (1 + math.cos(math.pi * share))


def make_scheduler(
    optimizer: torch.optim.Optimizer, recipe: Recipe, *, epochs: int, steps_per_epoch: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """The scheduler, to be stepped at every optimiser step, whichever grain the recipe asks for.

    Lightning steps a scheduler of epoch grain after the checkpoint of that epoch was written; one of step grain has no
    such trap, and its state is one counter.
    """

    def factor(step: int) -> float:
        position = step / steps_per_epoch if recipe.schedule_per == "step" else step // steps_per_epoch
        return rate_at(recipe, position, epochs) / recipe.learning_rate

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
