"""Every random draw as a function of (seed, epoch, step).

A run that is killed and resumed must equal an uninterrupted one bit for bit. Generator states in a checkpoint are not
enough for this (loader workers, prefetching and devices have states of their own), so no state is kept at all: before
each training batch, and before each training image, all generators are seeded afresh from the numbers that name it.
"""

from __future__ import annotations

import random
from typing import Any, Final

import numpy as np
import torch
from torch.utils.data import Dataset

# Streams keep draws of different purpose apart: equal (epoch, step) must not give equal numbers.
INITIAL_WEIGHTS: Final = 0
ORDER: Final = 1
IMAGE: Final = 2
STEP: Final = 3


def derive_seed(seed: int, *names: int) -> int:
    """A 63-bit seed that depends on all arguments and on their order."""
    words = np.random.SeedSequence([seed, *names]).generate_state(2, np.uint32)
    return (int(words[0]) << 32 | int(words[1])) & (2**63 - 1)


def reseed(seed: int, *names: int) -> None:
    """Seed Python's, numpy's and torch's generators (those of devices in use too) from ``seed`` and ``names``."""
    value = reseed_cpu(seed, *names)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(value)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(value)


def reseed_cpu(seed: int, *names: int) -> int:
    """Seed the generators that reading an image can draw from; returns the seed.

    Not ``torch.manual_seed``: for each device that is not in use it formats a stack trace, a millisecond an image.
    """
    value = derive_seed(seed, *names)
    random.seed(value)
    np.random.seed(value % 2**32)  # noqa: NPY002  the legacy generator is what user code and libraries draw from
    torch.default_generator.manual_seed(value)
    return value


class SeededSplit(Dataset[tuple[torch.Tensor, Any, int]]):
    """A training split whose images are read with generators seeded from (seed, epoch, index).

    It is indexed by ``(epoch, index)``, as :class:`mixlab.training.sampler.EpochSampler` yields them, so that neither
    the number of workers nor the order in which they work can change what a data set draws while it reads an image.
    """

    def __init__(self, split: Dataset[Any], seed: int) -> None:
        self.split = split
        self.seed = seed

    def __len__(self) -> int:
        return len(self.split)  # type: ignore[arg-type]

    def __getitem__(self, draw: tuple[int, int]) -> tuple[torch.Tensor, Any, int]:
        epoch, index = draw
        reseed_cpu(self.seed, IMAGE, epoch, index)
        image, target, number = self.split[index]
        return image, target, number
