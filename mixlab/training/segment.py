"""Masks from trained models: scores of a split, and the masks themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mixlab.ops.resize import resized
from mixlab.training.loaders import eval_loader
from mixlab.training.machine import Machine
from mixlab.training.mask_scores import MaskScores
from mixlab.training.recipe import Recipe
from mixlab.training.segmentation import SegmentationTask
from mixlab.training.task import collect
from mixlab.training.trainer import run_batches

HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
ARRAYS = ("true", "said", "hit", "said_unmasked", "hd95")


def evaluate_masks(
    model: nn.Module, card: Any, split: Any, *, recipe: Recipe, machine: Machine | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays of :class:`mixlab.training.mask_scores.MaskScores` for a split, and its metrics."""
    task = _task(model, card, recipe)
    known = all(spacing is not None for spacing in split.spacing)
    task.spacing = split.spacing if known else [None] * len(split)
    found = collect(run_batches(task, split, machine or Machine()))
    scores = MaskScores.of(found, split.ids, split.groups)
    arrays = {name: found[name] for name in ARRAYS if name in found}
    if scores.groups is not None:
        arrays["groups"] = scores.groups
    return arrays, {"loss": found["loss"], **scores.metrics(), "hd95_unit": "mm" if known else "pixels"}


def segment(
    model: nn.Module,
    card: Any,
    split: Any,
    *,
    recipe: Recipe,
    machine: Machine | None = None,
    sizes: Sequence[tuple[int, ...]] | None = None,
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The mask that ``model`` gives each image of a split, in order, with its number.

    The model is left in evaluation mode, on the machine's device and in its precision.

    Args:
        sizes: for each case the size of its mask, to which the scores of the classes are interpolated before the
            decision; None for the size of the images as presented.

    Yields:
        Number and mask: class numbers ``(*size)``, or 0 and 1 ``(K, *size)`` where structures overlap.
    """
    machine = machine or Machine()
    task = _task(model, card, recipe).eval().to(machine.device)
    if machine.precision == "64-true":
        task.double()
    for images, _, indices in eval_loader(split, task.recipe, machine):
        # between two masks the caller's own modes hold, so none is left on here
        yield from _masks(task, images, indices.tolist(), machine, sizes)


@torch.inference_mode()
def _masks(
    task: SegmentationTask, images: Tensor, indices: list[int], machine: Machine, sizes: Any
) -> list[tuple[int, NDArray[np.uint8]]]:
    """Numbers and masks of a batch."""
    half, found = HALF.get(machine.precision), []
    with torch.autocast(machine.device, dtype=half, enabled=half is not None):
        logits = task.logits(images.to(machine.device))
        for case, index in zip(logits, indices, strict=True):
            shown = case.unsqueeze(0) if sizes is None else resized(case.unsqueeze(0), sizes[index])
            found.append((index, task.decide(shown)[0].cpu().numpy()))
    return found


def _task(model: nn.Module, card: Any, recipe: Recipe) -> SegmentationTask:
    """A task that only predicts: what the recipe says of the training itself is left out."""
    kept = Recipe(loss=recipe.loss, crop_size=recipe.crop_size, batch_size=recipe.batch_size)
    return SegmentationTask(model, card, kept)
