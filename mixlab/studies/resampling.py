"""Which runs a ranking takes, and how their test cases are drawn again: for :mod:`mixlab.studies.statistics`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlab.studies.case_metrics import AnyPredictions, point_value
from mixlab.studies.comparisons import case_weights
from mixlab.studies.ranking import Run
from mixlab.training.mask_scores import MaskScores

Floats = NDArray[np.float64]
#: Seed and fold of a run; fold is -1 where there are none.
Cell = tuple[int, int]
#: With fewer groups of cases than this a ranking says so.
FEW_GROUPS = 10


def usable(runs: Iterable[Run], metric: str, split: str, notes: list[str]) -> dict[tuple[str, Cell], AnyPredictions]:
    """The predictions by label and cell; runs that cannot be compared are left out with a note."""
    found: dict[tuple[str, Cell], AnyPredictions] = {}
    truth: dict[str, bytes] = {}
    for run in sorted(runs, key=lambda r: (r.label, r.seed, r.fold or 0)):
        name = f"{run.label}, seed {run.seed}" + ("" if run.fold is None else f", fold {run.fold}")
        predictions = run.predictions(split)
        if predictions is None:
            notes.append(f"{name}: no {split} predictions, left out of the ranking")
            continue
        known = {str(i): t.tobytes() for i, t in zip(predictions.ids, predictions.targets, strict=True)}
        if any(truth.get(case, target) != target for case, target in known.items()):
            notes.append(f"{name}: its truth differs from another run's, left out of the ranking")
            continue
        truth.update(known)
        if np.isnan(point_value(predictions, metric)):  # one such score would make all comparisons undefined
            notes.append(f"{name}: {metric} is defined in no {split} case, left out of the ranking")
            continue
        key = (run.label, (run.seed, -1 if run.fold is None else run.fold))
        if key in found:
            notes.append(f"{name}: more than one run, the last one counts")
        found[key] = predictions
    return found


def group_count(found: Sequence[AnyPredictions]) -> int:
    """Groups of all cases; 0 where cases are not grouped."""
    groups = [p.groups for p in found if isinstance(p, MaskScores) and p.groups is not None]
    return len(np.unique(np.concatenate(groups))) if len(groups) == len(found) else 0


def resampled(
    found: Sequence[AnyPredictions], ids: NDArray[np.str_], resamples: int, random_state: int, notes: list[str]
) -> tuple[Floats, float]:
    """How often each case occurs in each bootstrap resample, ``(resamples, N)``: drawn within its class, or with all
    cases of its group; and the factor by which the variance over few groups is too small.

    Args:
        found: predictions on one split.
        ids: all their cases.
        resamples, random_state: of the bootstrap.
        notes: gets what is worth saying of the groups.
    """
    scores = [p for p in found if isinstance(p, MaskScores)]
    if not scores:
        first = found[0]
        strata = None if getattr(first, "multilabel", False) else _per_case(ids, [(p.ids, p.targets) for p in found])
        return case_weights(strata, len(ids), resamples, random_state), 1.0
    if any(p.groups is None for p in scores):
        return case_weights(None, len(ids), resamples, random_state), 1.0
    names, member = np.unique(_per_case(ids, [(p.ids, p.groups) for p in scores]), return_inverse=True)
    if len(names) == 1:
        notes.append("all test cases are of one group (a patient): intervals speak of other cases of it alone")
        return case_weights(None, len(ids), resamples, random_state), 1.0
    if len(names) < FEW_GROUPS:
        notes.append(f"the test cases are of {len(names)} groups only: what other groups would give is hardly known")
    return case_weights(None, len(names), resamples, random_state)[:, member], len(names) / (len(names) - 1)


def _per_case(ids: NDArray[np.str_], parts: Iterable[tuple[NDArray[np.str_], Any]]) -> NDArray[Any]:
    """What some runs say of their cases, in the order of all ``ids``."""
    gathered: dict[str, Any] = {}
    for own, values in parts:
        gathered |= zip(own.tolist(), values, strict=True)
    return np.array([gathered[case] for case in ids.tolist()])
