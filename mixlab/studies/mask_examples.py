"""Example cases of a segmentation run, for the report's overlays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mixlab.data.masks import IGNORE
from mixlab.studies.examples import as_picture
from mixlab.training.mask_scores import mean

SPREAD, WORST, BEST = 12, 6, 3
PIXELS = 192


class Chosen(Dataset[tuple[Tensor, Tensor, int]]):
    """Some cases of a split, numbered anew from 0.

    Args:
        split: an ImageSplit.
        indices: of its cases.
    """

    def __init__(self, split: Any, indices: Sequence[int]) -> None:
        self.split, self.indices = split, list(indices)
        self.ids = [split.ids[i] for i in self.indices]
        self.sizes = [split.sizes[i] for i in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        image, mask, _ = self.split[self.indices[index]]
        return image, mask, index


def choose_cases(dice: NDArray[np.float64]) -> list[tuple[int, str]]:
    """Cases to keep and why: ``spread`` over the split by their place, the same in every run; then the ``worst`` and
    the ``best`` of this run, by mean Dice over structures.

    Args:
        dice: of each case and structure, ``(N, K)``; nan where not defined.
    """
    chosen = dict.fromkeys(np.linspace(0, len(dice) - 1, min(SPREAD, len(dice))).round().astype(int).tolist(), "spread")
    means = mean(dice, 1)
    order = [int(i) for i in np.argsort(means, kind="stable") if not np.isnan(means[i])]
    for why, some in (("worst", order[:WORST]), ("best", order[::-1][:BEST])):
        for index in some:
            chosen.setdefault(index, why)
    return list(chosen.items())


def example_masks(split: Any, card: Any, masks: Iterable[NDArray[np.uint8]]) -> dict[str, NDArray[Any]]:
    """Images, truth and prediction of cases, at most 192 px wide and high.

    Of a volume it is the slice along the first axis with most of the structures in the truth.

    Args:
        split: the cases.
        card: the data set's card.
        masks: what was predicted for each, as the truth is stored; taken one at a time, as volumes are large.

    Returns:
        ``images`` ``(n, H, W)`` or ``(n, H, W, 3)`` uint8; ``truth`` and ``said``, class numbers ``(n, H, W)`` with 255
        for ignored pixels or planes ``(n, K, H, W)``; ``sizes`` ``(n, 2)``: height and width of each in the top left
        corner of its canvas.
    """
    pictures, truths, answers = [], [], []
    for index, said in enumerate(masks):
        image, truth, _ = split[index]
        truth, answer = truth.to(torch.uint8), torch.from_numpy(said)
        if card.spatial_dims == 3:
            place = _fullest(truth, card)
            image, truth, answer = image[:, place], truth[..., place, :, :], answer[..., place, :, :]
        elif card.spatial_dims == 1:
            truth, answer = truth.unsqueeze(-2), answer.unsqueeze(-2)
        picture = as_picture(image)
        size = _shown(picture.shape[1:])
        pictures.append(F.interpolate(picture.unsqueeze(0), size=size, mode="area")[0])
        truths.append(_nearest(truth, size))
        answers.append(_nearest(answer, size))
    values = _stacked([(p.clamp(0, 1) * 255).round().to(torch.uint8) for p in pictures]).transpose(0, 2, 3, 1)
    return {
        "images": values if values.shape[3] == 3 else values[..., 0],
        "truth": _stacked(truths),
        "said": _stacked(answers),
        "sizes": np.array([p.shape[1:] for p in pictures]),
    }


def _fullest(truth: Tensor, card: Any) -> int:
    """The slice along the first axis that has most of the structures; the middle one where none has any."""
    background = IGNORE if card.background is None else card.background
    there = truth.bool().any(0) if card.overlapping else (truth != IGNORE) & (truth != background)
    counts = there.flatten(1).sum(1)
    return int(counts.argmax()) if counts.any() else len(counts) // 2


def _shown(size: Sequence[int]) -> tuple[int, int]:
    scale = min(1.0, PIXELS / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _nearest(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """``(H, W)`` or ``(K, H, W)`` at another size, each pixel that of the nearest one."""
    planes = mask.reshape(1, -1, *mask.shape[-2:]).float()
    return F.interpolate(planes, size=size, mode="nearest-exact").to(torch.uint8).reshape(*mask.shape[:-2], *size)


def _stacked(parts: Sequence[Tensor]) -> NDArray[np.uint8]:
    """Maps of several sizes as one array, padded at the end."""
    height, width = (max(p.shape[axis] for p in parts) for axis in (-2, -1))
    padded = [F.pad(p, (0, width - p.shape[-1], 0, height - p.shape[-2])) for p in parts]
    return torch.stack(padded).numpy()
