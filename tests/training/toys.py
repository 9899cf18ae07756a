"""A tiny model and data set with all that draws random numbers: dropout, drop path, augmentation, noisy reads."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.layers import DropPath
from torch import Tensor, nn
from torch.utils.data import Dataset


@dataclass(frozen=True)
class ToyCard:
    """The fields of a data card that training reads."""

    task: str = "classification"
    classes: tuple[str, ...] = ("a", "b", "c")
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    flips: tuple[int, ...] = (0,)
    spatial_dims: int = 2
    name: str = "toy"
    channels: int = 1
    overlapping: bool = False


class ToySplit(Dataset[tuple[Tensor, Any, int]]):
    """Images whose brightness tells their class; ``noisy`` draws noise from all three generators while reading."""

    def __init__(
        self, count: int, *, seed: int = 0, size: tuple[int, ...] = (7, 5), labels: int = 0, noisy: bool = False
    ) -> None:
        draw = np.random.default_rng(seed)
        self.targets: NDArray[Any] = draw.integers(0, 3, count)
        levels = self.targets / 2
        if labels:
            self.targets = (draw.random((count, labels)) < 0.4).astype(np.float32)
            levels = self.targets.mean(axis=1)
        noise = draw.random((count, 1, *size))
        self.images = (0.5 * noise + 0.5 * levels.reshape(-1, 1, *[1] * len(size))).astype(np.float32)
        self.ids = [f"case-{seed}-{i}" for i in range(count)]
        self.noisy = noisy

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Any, int]:
        image = torch.from_numpy(self.images[index])
        if self.noisy:
            legacy = np.random.rand()  # noqa: NPY002  what careless reading code draws from
            image = image + 0.01 * torch.rand(1) + 0.01 * random.random() + 0.01 * float(legacy)
        target = self.targets[index]
        return image, torch.from_numpy(target) if target.ndim else int(target), index


class ToyBlock(nn.Module):
    def __init__(self, width: int, conv: type[nn.Module]) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.mix = conv(width, width, 3, padding=1)
        self.path = DropPath(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.path(self.mix(self.norm(x)).relu())


class ToyStage(nn.Module):
    def __init__(self, before: int, width: int, depth: int, conv: type[nn.Module]) -> None:
        super().__init__()
        self.embed = conv(before, width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(ToyBlock(width, conv) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return x


class ToyNet(nn.Module):
    """The skeleton of a mixlab model: ``stages`` with ``embed`` and ``blocks``, and a ``head``."""

    def __init__(self, classes: int = 3, channels: int = 1, spatial_dims: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[spatial_dims - 1]
        self.stages = nn.ModuleList([ToyStage(channels, 6, 1, conv), ToyStage(6, 8, 2, conv)])
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(8, classes))

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return self.head(self.norm(x.flatten(2).mean(2)))


def toy_splits(**options: Any) -> dict[str, ToySplit]:
    """Three splits; sizes leave incomplete batches, and the last validation batch has one image."""
    return {
        "train": ToySplit(45, seed=1, noisy=True, **options),
        "val": ToySplit(33, seed=2, **options),
        "test": ToySplit(20, seed=3, **options),
    }
