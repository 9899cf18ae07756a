"""Toy images with masks: bright and dark boxes on grey noise, and a tiny dense model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from mixlab.data.masks import IGNORE
from tests.training.toys import ToyBlock

Size = tuple[int, ...]


@dataclass(frozen=True)
class MaskCard:
    """The fields of a data card that training on masks reads."""

    task: str = "segmentation"
    classes: tuple[str, ...] = ("grey", "bright", "dark")
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    flips: tuple[int, ...] = (0,)
    spatial_dims: int = 2
    name: str = "boxes"
    channels: int = 1
    overlapping: bool = False
    background: int | None = 0
    ignore_label: int | None = None
    image_size: Size | None = None


#: The two boxes as structures that may overlap.
OVERLAPPING_CARD = MaskCard(classes=("bright", "dark"), overlapping=True, background=None)


class Targets(list[NDArray[np.uint8]]):
    """Masks, and how many pixels of each class they have."""

    def __init__(self, masks: Sequence[NDArray[np.uint8]], classes: int, *, overlapping: bool) -> None:
        super().__init__(masks)
        self.classes, self.overlapping = classes, overlapping

    def counts(self) -> NDArray[np.int64]:
        """Pixels of each class in each case, ``(N, K)``; ignored ones in none."""
        planes = [m if self.overlapping else np.stack([m == k for k in range(self.classes)]) for m in self]
        return np.array([p.reshape(self.classes, -1).sum(1) for p in planes], dtype=np.int64)


class MaskSplit(Dataset[tuple[Tensor, Tensor, int]]):
    """Images with a bright and a dark box each, as :class:`mixlab.data.ImageSplit` gives them.

    Args:
        count: of images.
        sizes: of the images, cycled.
        seed: of places and noise.
        card: whether structures overlap, and whether pixels are ignored (the last row of each image).
        box: side of the boxes; 0 for images without any.
        spacing: of all cases.
        groups: of how many cases in a row each is one group; None for no groups.
    """

    def __init__(
        self,
        count: int,
        sizes: Sequence[Size] = ((10, 9),),
        *,
        seed: int = 0,
        card: MaskCard | None = None,
        box: int = 4,
        spacing: tuple[float, ...] | None = None,
        groups: int | None = None,
    ) -> None:
        card, draw = card or MaskCard(), np.random.default_rng(seed)
        self.overlapping = card.overlapping
        self.images: list[NDArray[np.float32]] = []
        masks = []
        for i in range(count):
            size = sizes[i % len(sizes)]
            planes = np.zeros((2, *size), dtype=np.uint8)
            for plane in planes:
                starts = [int(draw.integers(0, max(1, n - box + 1))) for n in size]
                plane[tuple(slice(s, s + box) for s in starts)] = 1
            image = 0.45 + 0.4 * planes[0] * (1 - planes[1]) - 0.35 * planes[1] + 0.2 * draw.random(size) - 0.1
            self.images.append(image[None].clip(0, 1).astype(np.float32))
            mask = planes if card.overlapping else np.where(planes[1], 2, planes[0]).astype(np.uint8)
            if card.ignore_label is not None:
                mask[-1] = IGNORE
            masks.append(mask)
        self.targets = Targets(masks, len(card.classes), overlapping=card.overlapping)
        self.ids = [f"case-{seed}-{i}" for i in range(count)]
        self.sizes = [image.shape[1:] for image in self.images]
        self.spacing = [spacing] * count
        self.groups = None if groups is None else [f"patient {i // groups}" for i in range(count)]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        dtype = torch.float32 if self.overlapping else torch.int64
        return torch.from_numpy(self.images[index]), torch.as_tensor(self.targets[index], dtype=dtype), index


def mask_splits(sizes: Sequence[Size] = ((10, 9),), *, train: int = 21, **options: Any) -> dict[str, MaskSplit]:
    """Three splits; batches of 4 leave one image over."""
    return {
        name: MaskSplit(count, sizes, seed=seed, **options)
        for seed, (name, count) in enumerate({"train": train, "val": 9, "test": 5}.items())
    }


class MaskStage(nn.Module):
    def __init__(self, before: int, width: int, conv: type[nn.Module]) -> None:
        super().__init__()
        self.embed = conv(before, width, 3, padding=1)
        self.blocks = nn.ModuleList([ToyBlock(width, conv)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return x


class MaskNet(nn.Module):
    """The skeleton of a dense model, at full resolution, with batch norm, drop path and dropout."""

    dense = True

    def __init__(self, classes: int = 3, spatial_dims: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[spatial_dims - 1]
        norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[spatial_dims - 1]
        self.stages = nn.ModuleList([MaskStage(1, 6, conv), MaskStage(6, 8, conv)])
        self.norm = norm(8)
        self.head = nn.Sequential(nn.Dropout(dropout), conv(8, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return self.head(self.norm(x))


class PixelNet(nn.Module):
    """Looks at each pixel alone, so that windows and whole images give the same: the classes of :class:`MaskCard` by
    two thresholds, or two structures."""

    dense = True

    def __init__(self, classes: int = 3, spatial_dims: int = 2) -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[spatial_dims - 1]
        self.head: nn.Module = conv(1, classes, 1)
        rows = {3: ([0.0, 4.0, -4.0], [0.0, -3.0, -3.0]), 2: ([4.0, -4.0], [-3.0, -3.0])}[classes]
        with torch.no_grad():
            for parameter, row in zip(self.head.parameters(), rows, strict=True):
                parameter.copy_(torch.tensor(row).reshape(parameter.shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)
