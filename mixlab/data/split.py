"""One split of a data set, as torch sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from mixlab.data.card import Task
from mixlab.data.images import Array
from mixlab.data.prepare import PreparedImages
from mixlab.data.prepared_masks import PreparedMasks, SplitMasks
from mixlab.data.resize import to_unit


class ImageSplit(Dataset[tuple[torch.Tensor, torch.Tensor, int]]):
    """Images and labels of one split.

    ``split[i]`` is ``(image, target, i)``: the image float32 ``(C, *spatial)`` in [0, 1], not yet normalised by mean
    and std; the target an int64 scalar (classification) or float32 ``(K,)`` (multilabel). Of a segmentation set it is
    the mask at the image's size: int64 ``(*spatial)`` with classes 0 to K-1 and the card's ``ignore_label``, or, if
    the card is ``overlapping``, float32 ``(K, *spatial)`` of 0 and 1. Cases of a segmentation set that is opened
    without ``image_size`` may differ in size (the card's ``image_size`` is then None).

    Reading is deterministic and draws no random numbers. It can be pickled for loader workers.

    Attributes:
        targets: all targets without decoding an image: int64 ``(N,)`` or float32 ``(N, K)`` in one array; of a
            segmentation set a sequence of uint8 masks, each decoded when it is looked at.
        ids: stable names of the cases.
        groups: what belongs together (a patient) for each case, or None.
        spacing: millimetres from pixel to pixel as presented, in (D, H, W) order, for each case; None where unknown.
        sizes: ``(*spatial)`` of each case as presented, without decoding it.
    """

    def __init__(
        self,
        images: PreparedImages,
        indices: NDArray[np.int64],
        targets: Array | PreparedMasks,
        *,
        task: Task,
        ids: list[str],
        groups: list[str] | None = None,
        spacing: Sequence[tuple[float, ...] | None] | None = None,
    ) -> None:
        self.images = images
        self.indices = indices
        self.task = task
        self.overlapping = isinstance(targets, PreparedMasks) and targets.overlapping
        # a sequence of masks stands in for the array: what works on both needs length, indices and iteration only
        self.targets: Any = SplitMasks(targets, indices) if isinstance(targets, PreparedMasks) else targets[indices]
        self.ids = [ids[i] for i in indices]
        self.groups = None if groups is None else [groups[i] for i in indices]
        self.sizes = [images.shape(int(i))[1:] for i in indices]
        stored = [images.store.shapes[int(i)][1:] for i in indices]
        own = [None] * len(indices) if spacing is None else [spacing[int(i)] for i in indices]
        self.spacing = [presented(*case) for case in zip(own, stored, self.sizes, strict=True)]

    @property
    def labels(self) -> Any:
        """The same as ``targets``."""
        return self.targets

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        image = to_unit(self.images[int(self.indices[index])])
        dtype = torch.float32 if self.task == "multilabel" or self.overlapping else torch.int64
        return image, torch.as_tensor(self.targets[index], dtype=dtype), index


def presented(
    spacing: tuple[float, ...] | None, stored: tuple[int, ...], shown: tuple[int, ...]
) -> tuple[float, ...] | None:
    """Spacing after resizing from ``stored`` to ``shown`` pixels: the field of view stays."""
    if spacing is None:
        return None
    return tuple(s * (old / new) for s, old, new in zip(spacing, stored, shown, strict=True))
