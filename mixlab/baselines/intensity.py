"""What intensity alone tells: the class of each pixel from its grey level, without a look at its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mixlab.baselines.base import Baseline, BaselineConfig, register_baseline
from mixlab.errors import Quoted, expected

LEVELS = 256
Counts = NDArray[np.int64]
Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]


@register_baseline("intensity")
class Intensity(Baseline):
    """The class of each pixel from a table over 256 levels of its intensity (the mean of the channels).

    It has no parameters and is not trained step by step: :meth:`fit_to` searches for the table with the largest Dice on
    the training split (the mean over structures, all pixels pooled). For classes that are apart in intensity this is
    what thresholds can do. A token mixer that does not beat it has not looked around.
    """

    takes = frozenset({"image_size"})
    dense = True
    listed_classes = 2
    sharpness: ClassVar[float] = 10.0
    """Logit of what the table says; of all else 0. Only a loss can see it."""
    table: Tensor
    range: Tensor

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__(config)
        if config.features_only:
            where = f"model {config.architecture}"
            raise expected(where, "logits at every pixel", Quoted("features_only=True"), "features_only=False")
        # Planes of 0 and 1, one a class, so that overlapping structures need no other form.
        self.register_buffer("table", torch.zeros(config.num_classes, LEVELS))
        self.register_buffer("range", torch.tensor([0.0, 1.0]))
        self.head = None

    def levels(self, x: Tensor) -> Tensor:
        """``(B, C, *spatial)`` as levels ``(B, *spatial)``, int64."""
        low, high = self.range
        share = (x.mean(1) - low) / (high - low).clamp(min=1e-12)
        return (share * LEVELS).long().clamp(0, LEVELS - 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_channels, *spatial)`` to ``(B, num_classes, *spatial)``."""
        self.check(x)
        said = F.embedding(self.levels(x), self.table.T)  # (B, *spatial, K)
        return self.sharpness * (2 * said - 1).movedim(-1, 1).to(x.dtype)

    @torch.no_grad()
    def fit_to(self, batches: Batches, structures: Sequence[int], *, overlapping: bool) -> None:
        """Choose the table.

        Args:
            batches: gives, anew at each call, images as the model will see them and one bool plane a class
                ``(B, K, *spatial)``; without overlap a pixel that is in none counts for nothing.
            structures: the classes whose Dice counts.
            overlapping: each class is a question of its own.
        """
        ends = [(float(x.mean(1).min()), float(x.mean(1).max())) for x, _ in batches()]
        self.range = torch.tensor([min(low for low, _ in ends), max(high for _, high in ends)])
        present = np.zeros((self.config.num_classes, LEVELS), dtype=np.int64)
        pixels = np.zeros(LEVELS, dtype=np.int64)
        for x, planes in batches():
            levels = self.levels(x)
            pixels += np.bincount(levels.flatten().numpy(), minlength=LEVELS)
            for k in range(len(present)):
                present[k] += np.bincount(levels[planes[:, k]].numpy(), minlength=LEVELS)
        found = marked(present, pixels) if overlapping else assigned(present, structures)
        self.table.copy_(torch.from_numpy(found))


def assigned(present: Counts, structures: Sequence[int]) -> NDArray[np.float32]:
    """One class for each level, as planes ``(K, levels)``: first the most frequent one, then changes of single levels
    as long as one of them raises the mean Dice of the structures (a local search: no single change is better).

    Args:
        present: pixels of each class at each level, ``(K, levels)``.
        structures: the classes whose Dice counts.
    """
    choice = present.argmax(axis=0)
    true = present.sum(axis=1)

    def dice(choice: NDArray[np.intp]) -> float:
        chosen = choice == np.arange(len(present))[:, None]  # (K, levels)
        hit, said = (present * chosen).sum(axis=1), (present.sum(axis=0) * chosen).sum(axis=1)
        return float(np.mean([2 * hit[k] / max(1, true[k] + said[k]) for k in structures]))

    best, improved = dice(choice), True
    while improved:
        improved = False
        for level in np.flatnonzero(present.any(axis=0)):
            for k in range(len(present)):
                trial = choice.copy()
                trial[level] = k
                if (value := dice(trial)) > best:
                    choice, best, improved = trial, value, True
    seen = np.flatnonzero(present.any(axis=0))
    if len(seen):  # a level that training lacks is taken for the nearest one that it has
        nearest = np.abs(np.arange(present.shape[1])[:, None] - seen).argmin(axis=1)
        choice = choice[seen[nearest]]
    return (choice == np.arange(len(present))[:, None]).astype(np.float32)


def marked(present: Counts, pixels: Counts) -> NDArray[np.float32]:
    """The levels of each structure, ``(K, levels)``: those in which it is most frequent, as many as make its Dice the
    largest, which no other set of levels exceeds.

    Args:
        present: pixels of each structure at each level, ``(K, levels)``.
        pixels: all pixels at each level, ``(levels,)``.
    """
    planes = np.zeros(present.shape, dtype=np.float32)
    for k, own in enumerate(present):
        order = np.argsort(-own / np.maximum(1, pixels), kind="stable")
        dice = 2 * np.cumsum(own[order]) / np.maximum(1, own.sum() + np.cumsum(pixels[order]))
        if own.any():
            planes[k, order[: int(dice.argmax()) + 1]] = 1
    return planes
