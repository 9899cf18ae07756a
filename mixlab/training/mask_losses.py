"""Losses of masks: Dice (MONAI's), cross-entropy, or their sum, over the pixels that count."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mixlab.data.masks import IGNORE

#: Which of the two terms a loss has.
TERMS: dict[str, tuple[bool, bool]] = {
    "dice_ce": (True, True),
    "dice_bce": (True, True),
    "dice": (True, False),
    "cross_entropy": (False, True),
    "bce": (False, True),
}


def mask_loss(
    logits: Tensor,
    masks: Tensor,
    loss: str,
    *,
    weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """The loss of each case, ``(B,)``.

    Dice is one minus MONAI's soft Dice, the mean over classes, the background among them; cross-entropy is the mean
    over the pixels that count.

    Args:
        logits: ``(B, K, *spatial)``.
        masks: index maps ``(B, *spatial)``, int64, with 255 for pixels that count for nothing; or overlapping
            structures ``(B, K, *spatial)``, float, which are each a question of their own.
        loss: a key of :data:`TERMS`.
        weights: of the classes in the cross-entropy, or of the positives of each structure, ``(K,)``.
        label_smoothing: of the cross-entropy; not used for overlapping structures.
    """
    overlapping = masks.ndim == logits.ndim
    weights = None if weights is None else weights.to(logits.dtype)  # a module in double precision has them in double
    with_dice, with_entropy = TERMS[loss]
    total = logits.new_zeros(len(logits))
    if with_dice:
        total = total + (_dice_of_planes(logits, masks) if overlapping else _dice_of_maps(logits, masks))
    if with_entropy and overlapping:
        positives = None if weights is None else weights.reshape(-1, *[1] * (logits.ndim - 2))
        each = F.binary_cross_entropy_with_logits(
            logits, masks.to(logits.dtype), pos_weight=positives, reduction="none"
        )
        total = total + each.flatten(1).mean(1)
    elif with_entropy:
        total = total + _cross_entropy(logits, masks, weights, label_smoothing)
    return total


def _cross_entropy(logits: Tensor, masks: Tensor, weights: Tensor | None, label_smoothing: float) -> Tensor:
    """Weighted mean over the pixels of each case; 0 where none counts."""
    each = F.cross_entropy(
        logits, masks, weight=weights, ignore_index=IGNORE, label_smoothing=label_smoothing, reduction="none"
    )
    counts = (masks != IGNORE).to(each.dtype)
    if weights is not None:
        counts = counts * weights[torch.where(masks == IGNORE, 0, masks)]
    return each.flatten(1).sum(1) / counts.flatten(1).sum(1).clamp(min=torch.finfo(each.dtype).tiny)


def _dice_of_planes(logits: Tensor, masks: Tensor) -> Tensor:
    return _dice(logits.sigmoid(), masks.to(logits.dtype))


def _dice_of_maps(logits: Tensor, masks: Tensor) -> Tensor:
    # compared class by class, because one-hot integers of a volume take eight times the memory
    classes = torch.arange(logits.shape[1], device=masks.device).reshape(-1, *[1] * (masks.ndim - 1))
    truth = masks.unsqueeze(1) == classes
    counts = (masks != IGNORE).unsqueeze(1)
    return _dice(logits.softmax(1) * counts, truth.to(logits.dtype))


def _dice(probabilities: Tensor, truth: Tensor) -> Tensor:
    loss: Any = _monai_dice()
    return loss(probabilities, truth).flatten(1).mean(1)


def _monai_dice() -> Any:
    from monai.losses import DiceLoss  # imported late: MONAI takes seconds

    return DiceLoss(reduction="none")
