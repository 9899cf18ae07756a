"""Crops of a fixed size from images of any size, for training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from mixlab.data.masks import IGNORE


class RandomCrops(Dataset[tuple[Tensor, Tensor, int]]):
    """Crops of the images and masks of a split, at places that are drawn anew each time.

    Where an image is smaller than the crop it is padded at the end: the image with 0, the mask with ``outside``.
    The draws come from torch's generator, which the training seeds for each image.

    Args:
        split: gives ``(image (C, *spatial), mask (*spatial) or (K, *spatial), index)``.
        size: of the crop, one number an axis.
        outside: value of the mask where there is no image.
        each: crops from each image.
    """

    def __init__(
        self, split: Dataset[tuple[Tensor, Tensor, int]], size: Sequence[int], outside: float, each: int = 1
    ) -> None:
        self.split, self.size, self.outside, self.each = split, tuple(size), outside, each

    def __len__(self) -> int:
        return self.each * len(self.split)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        image, mask, number = self.split[index // self.each]
        free = [max(0, n - c) for n, c in zip(image.shape[1:], self.size, strict=True)]
        starts = [int(torch.randint(n + 1, ())) for n in free]
        image, mask = (cut(x, starts, self.size) for x in (image, mask))
        return padded_to(image, self.size), padded_to(mask, self.size, self.outside), number


def cut(x: Tensor, starts: Sequence[int], size: Sequence[int]) -> Tensor:
    """The part of ``(..., *spatial)`` from ``starts`` on that is at most ``size`` large."""
    for axis, (start, n) in enumerate(zip(starts, size, strict=True), start=x.ndim - len(size)):
        x = x.narrow(axis, start, min(n, x.shape[axis] - start))
    return x


def padded_to(x: Tensor, size: Sequence[int], value: float = 0.0) -> Tensor:
    """``(..., *spatial)`` padded at the end of each axis to at least ``size``."""
    own = x.shape[x.ndim - len(size) :]
    lacking = [max(0, n - have) for n, have in zip(size, own, strict=True)]
    if not any(lacking):
        return x
    return F.pad(x, [end for n in reversed(lacking) for end in (0, n)], value=value)


def outside_of_masks(card: Any) -> float:
    """The value of masks where there is no image: the background, else the value that counts for nothing; 0 in planes
    of overlapping structures."""
    if card.task != "segmentation" or card.overlapping:
        return 0
    return IGNORE if card.background is None else card.background
