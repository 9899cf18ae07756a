"""One split of a data set, as torch sees it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from mixlab.data.card import Task
from mixlab.data.images import Array
from mixlab.data.prepare import PreparedImages
from mixlab.data.resize import to_unit


class ImageSplit(Dataset[tuple[torch.Tensor, torch.Tensor, int]]):
    """Images and labels of one split.

    ``split[i]`` is ``(image, target, i)``: the image float32 ``(C, *spatial)`` in [0, 1], not yet normalised by mean
    and std; the target an int64 scalar (classification), float32 ``(K,)`` (multilabel) or int64 ``(*spatial)``
    (segmentation). Reading is deterministic and draws no random numbers. It can be pickled for loader workers.

    Attributes:
        targets: all targets as one array, without decoding an image: int64 ``(N,)``, float32 ``(N, K)`` or label maps.
        ids: stable names of the cases.
        groups: what belongs together (a patient) for each case, or None.
    """

    def __init__(
        self,
        images: PreparedImages,
        indices: NDArray[np.int64],
        targets: Array,
        *,
        task: Task,
        ids: list[str],
        groups: list[str] | None = None,
    ) -> None:
        self.images = images
        self.indices = indices
        self.task = task
        self.targets: NDArray[Any] = targets[indices]
        self.ids = [ids[i] for i in indices]
        self.groups = None if groups is None else [groups[i] for i in indices]

    @property
    def labels(self) -> NDArray[Any]:
        """The same as ``targets``."""
        return self.targets

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        image = to_unit(self.images[int(self.indices[index])])
        dtype = torch.float32 if self.task == "multilabel" else torch.int64
        return image, torch.as_tensor(self.targets[index], dtype=dtype), index
