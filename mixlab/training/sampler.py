"""The order of the training images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from mixlab.training.determinism import ORDER, derive_seed


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """Batches of ``(epoch, index)`` whose order is a function of seed and epoch alone.

    All images are used, also those of an incomplete last batch; only a last batch of a single image is left out
    (of that epoch), for batch norm cannot train on one.

    Args:
        count: number of images.
        batch_size: images a batch.
        seed: the run's seed.
        epoch: first epoch, more than 0 for a resumed run. Lightning prefetches the first batch before it calls
            :meth:`set_epoch`, so a resumed run must not start with the order of epoch 0.
        weights: one weight an image to draw with replacement (balanced sampling), or None for each image once.
    """

    def __init__(
        self, count: int, batch_size: int, *, seed: int, epoch: int = 0, weights: NDArray[np.float64] | None = None
    ) -> None:
        self.count, self.batch_size, self.seed, self.epoch = count, batch_size, seed, epoch
        self.weights = None if weights is None else weights / weights.sum()

    @property
    def sampler(self) -> EpochSampler:
        """Itself: Lightning looks for ``batch_sampler.sampler`` to call ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self.epoch = epoch

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Indices of the images in the order of an epoch."""
        generator = np.random.Generator(np.random.PCG64(derive_seed(self.seed, ORDER, epoch)))
        if self.weights is None:
            return generator.permutation(self.count)
        return generator.choice(self.count, size=self.count, replace=True, p=self.weights)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.epoch
        order = self.order(epoch)
        for batch in range(len(self)):
            part = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(epoch, int(index)) for index in part]

    def __len__(self) -> int:
        full, rest = divmod(self.count, self.batch_size)
        return full + (rest > 1 or (full == 0 and rest == 1))


def balancing_weights(targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weights of the images that make all classes equally frequent."""
    counts = np.bincount(targets)
    return 1.0 / counts[targets].astype(np.float64)
