"""What each label makes of the masks of the test cases: its runs' scores case by case, and their means.

Every score follows the rule of :mod:`mixlab.training.mask_scores`: where neither truth nor prediction has a structure
there is no number (nan), and means leave it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mixlab.studies.report.summary import LabelSummary, StudySummary
from mixlab.training.mask_scores import MaskScores, mean

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LabelCases:
    """A label's ``R`` runs on the ``N`` test cases that any of them predicted, in the order of their ids.

    Args:
        label: The label.
        ids: Case ids, ``(N,)``.
        dice: Dice of each run, case and structure, ``(R, N, K)``; nan where there is none, or the run (of another
            fold) did not predict the case.
        hd95: 95 % Hausdorff distances likewise; None where no run measured any.
        missed: Where the truth has the structure and the run says nothing of it, ``(R, N, K)``.
        invented: Where the run predicts the structure and the truth lacks it, ``(R, N, K)``.
        left_out: Cases of each run in which neither truth nor prediction has the structure, ``(R, K)``.
        predicted: How many cases each run predicted, ``(R,)``.
    """

    label: LabelSummary
    ids: NDArray[np.str_]
    dice: Floats
    hd95: Floats | None
    missed: NDArray[np.bool_]
    invented: NDArray[np.bool_]
    left_out: Counts
    predicted: Counts

    @property
    def case_dice(self) -> Floats:
        """Mean over the runs, ``(N, K)``."""
        return mean(self.dice, 0)

    @property
    def case_hd95(self) -> Floats | None:
        """Mean over the runs, ``(N, K)``."""
        return None if self.hd95 is None else mean(self.hd95, 0)

    @cached_property
    def overall_dice(self) -> dict[str, float]:
        """Mean over runs of the mean over structures of each case; cases without a number are left out."""
        means = mean(mean(self.dice, 2), 0)
        return {str(case): float(value) for case, value in zip(self.ids, means, strict=True) if not np.isnan(value)}

    def runs_with(self, case: str) -> int:
        """How many runs have a Dice of a case: those whose mean :attr:`overall_dice` is."""
        of_case = self.dice[:, self.ids == case]
        return int((~np.isnan(of_case)).any(axis=(1, 2)).sum())


def label_cases(summary: StudySummary) -> list[LabelCases]:
    """The cases of every label with predictions of masks, in the order of the ranking."""
    wide = len(summary.study.structures)
    made = (_cases(label, wide) for label in summary.labels)
    return [cases for cases in made if cases is not None]


def _cases(label: LabelSummary, structures: int) -> LabelCases | None:
    found = [p for run in label.runs if isinstance(p := run.predictions("test"), MaskScores)]
    found = [p for p in found if p.hit.shape[1] == structures]
    if not found:
        return None
    ids = np.unique(np.concatenate([p.ids for p in found]))
    places = [np.searchsorted(ids, p.ids) for p in found]
    shape = (len(found), len(ids), structures)
    dice, missed, invented = np.full(shape, np.nan), np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    hd95 = np.full(shape, np.nan) if any(p.hd95 is not None for p in found) else None
    for run, (p, place) in enumerate(zip(found, places, strict=True)):
        dice[run, place] = p.dice()
        missed[run, place] = (p.true > 0) & (p.said == 0)
        invented[run, place] = (p.true == 0) & (p.said > 0)
        if hd95 is not None and p.hd95 is not None:
            hd95[run, place] = p.hd95
    left_out = np.stack([np.isnan(p.dice()).sum(axis=0) for p in found])
    return LabelCases(label, ids, dice, hd95, missed, invented, left_out, np.array([len(p.ids) for p in found]))


def span(values: Iterable[int] | Counts) -> str:
    """``3``, or ``3 to 5`` where runs differ."""
    found: Sequence[int] = [int(value) for value in values]
    low, high = min(found), max(found)
    return str(low) if low == high else f"{low} to {high}"
