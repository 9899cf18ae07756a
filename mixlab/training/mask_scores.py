"""What a run predicted on the masks of a split, case by case and structure by structure; needs no torch.

A *structure* is a class that is not the background; each one of masks that overlap. The rule for empty structures:

* A case in which neither truth nor prediction has the structure says nothing of it: its Dice and distance are nan and
  are left out of the structure's means.
* A case in which only one of the two has it counts Dice 0, and as distance the diagonal of the field of view, the
  largest that can be. So a structure that is missed or invented costs something in both.

A split's Dice (distance) is the mean over structures of the mean over cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class MaskScores:
    """Pixels and distances of ``N`` cases and ``K`` structures; ignored pixels count for nothing.

    Args:
        ids: Case ids, ``(N,)``, unique; they pair the cases of different runs.
        true: Pixels of each structure in the truth, ``(N, K)``.
        said: Pixels of it in the prediction, ``(N, K)``.
        hit: Pixels of it in both, ``(N, K)``.
        hd95: 95 % Hausdorff distance, in millimetres where the spacing of all cases is known, else in pixels,
            ``(N, K)``; None where none was measured.
        said_unmasked: Pixels of it in the prediction with those where the truth is to be ignored, ``(N, K)``; None
            where the set has no ignored pixels.
        groups: What belongs together (a patient), ``(N,)``, or None.
    """

    ids: NDArray[np.str_]
    true: Counts
    said: Counts
    hit: Counts
    hd95: Floats | None = None
    said_unmasked: Counts | None = None
    groups: NDArray[np.str_] | None = None

    @classmethod
    def of(
        cls, arrays: Mapping[str, NDArray[Any]], ids: Sequence[str] = (), groups: Sequence[str] | None = None
    ) -> MaskScores:
        """Scores from arrays by name, as a run's ``predictions_<split>.npz`` has them."""
        together = arrays.get("groups", groups)
        return cls(
            np.asarray(ids, dtype=np.str_),
            arrays["true"],
            arrays["said"],
            arrays["hit"],
            arrays.get("hd95"),
            arrays.get("said_unmasked"),
            None if together is None else np.asarray(together, dtype=np.str_),
        )

    @property
    def targets(self) -> Counts:
        """What runs that are compared must agree on: the pixels of each structure in the truth."""
        return self.true

    def dice(self, *, masked: bool = True) -> Floats:
        """Dice of each case and structure, ``(N, K)``; nan where neither truth nor prediction has it.

        Args:
            masked: False to count what is predicted on ignored pixels as wrong.
        """
        said = self.said if masked or self.said_unmasked is None else self.said_unmasked
        total = (self.true + said).astype(np.float64)
        return np.divide(2.0 * self.hit, total, out=np.full(total.shape, np.nan), where=total > 0)

    def metrics(self) -> dict[str, Any]:
        """All metrics of the split, None where nothing is defined.

        Returns:
            ``dice``, ``per_structure_dice`` (K), ``cases_without`` (K: cases in which neither truth nor prediction has
            the structure); ``dice_unmasked`` where the set has ignored pixels; ``hd95`` and ``per_structure_hd95``
            where distances were measured.
        """
        dice = self.dice()
        found: dict[str, Any] = {
            "dice": mean_of_means(dice),
            "per_structure_dice": numbers(mean(dice, 0)),
            "cases_without": np.isnan(dice).sum(axis=0).tolist(),
        }
        if self.said_unmasked is not None:
            found["dice_unmasked"] = mean_of_means(self.dice(masked=False))
        if self.hd95 is not None:
            found["hd95"] = mean_of_means(self.hd95)
            found["per_structure_hd95"] = numbers(mean(self.hd95, 0))
        return found


def mean_of_means(values: Floats) -> float | None:
    """Mean over structures of the mean over cases of ``(N, K)``, nan left out; None where all are nan."""
    return numbers(np.atleast_1d(mean(mean(values, 0), 0)))[0]


def mean(values: Floats, over: int) -> Floats:
    """Mean over an axis, nan left out; nan where all are."""
    there = ~np.isnan(values)
    number = there.sum(axis=over)
    total = np.where(there, values, 0.0).sum(axis=over)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def numbers(values: Floats) -> list[float | None]:
    """Values for JSON and for averages: None in the place of nan."""
    return [None if np.isnan(value) else float(value) for value in values]
