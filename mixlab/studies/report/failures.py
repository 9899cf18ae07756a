"""The failure list: structures that a label misses, invents, or finds less than half of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixlab.studies.report.mask_cases import LabelCases
from mixlab.studies.report.summary import StudySummary, join
from mixlab.training.mask_scores import mean

#: A mean Dice below this is listed.
LOW = 0.5
#: So many rows are shown.
MOST = 200


@dataclass(frozen=True)
class Failure:
    """A label, a case and a structure.

    Args:
        label: The label.
        case: The case's id.
        structure: The structure's name.
        dice: Mean over the runs that say something of it.
        hd95: Mean 95 % Hausdorff distance; None where none was measured.
        failed: Runs with Dice 0.
        runs: Runs that say something of it.
        why: What the runs with Dice 0 did: ``missed``, ``invented``, ``found elsewhere``; empty where none did.
    """

    label: str
    case: str
    structure: str
    dice: float
    hd95: float | None
    failed: int
    runs: int
    why: str


@dataclass(frozen=True)
class Failures:
    """The worst failures, and how many there are in all."""

    rows: list[Failure]
    total: int


def failures(summary: StudySummary, cases: Sequence[LabelCases], most: int = MOST) -> Failures:
    """Failures of all labels, lowest Dice first; of equal ones those of most runs."""
    found: list[tuple[float, int, int, int, int]] = []
    for place, label in enumerate(cases):
        dice, zeros = mean(label.dice, 0), (label.dice == 0).sum(axis=0)
        rows, columns = np.nonzero((zeros > 0) | (dice < LOW))  # a comparison with nan is false
        for n, k in zip(rows.tolist(), columns.tolist(), strict=True):
            found.append((float(dice[n, k]), -int(zeros[n, k]), place, n, k))
    shown = sorted(found)[:most]
    return Failures([_failure(summary, cases[place], n, k) for _, _, place, n, k in shown], len(found))


def _failure(summary: StudySummary, label: LabelCases, n: int, k: int) -> Failure:
    dice = label.dice[:, n, k]
    defined = dice[~np.isnan(dice)]
    zero, missed, invented = dice == 0, label.missed[:, n, k], label.invented[:, n, k]
    kinds = (("missed", zero & missed), ("invented", zero & invented), ("found elsewhere", zero & ~missed & ~invented))
    why = [word for word, runs in kinds if runs.any()]
    hd95 = None if label.hd95 is None else float(mean(label.hd95[:, n, k], 0))
    return Failure(
        label=label.label.label,
        case=str(label.ids[n]),
        structure=summary.study.structures[k],
        dice=float(defined.mean()),
        hd95=None if hd95 is None or np.isnan(hd95) else hd95,
        failed=int(zero.sum()),
        runs=len(defined),
        why=join(why),
    )
