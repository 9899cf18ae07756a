"""Metrics as functions of case weights, so that a bootstrap over test cases is a few matrix products.

Every function takes ``weights`` of shape ``(B, N)``: row ``b`` says how often each of the ``N`` cases occurs in
resample ``b`` (all ones: the metric itself). The definitions are torchmetrics': macro F1 and balanced accuracy leave
out a class that occurs neither in the truth nor (for F1) in the predictions; Dice follows the rule of
:mod:`mixlab.training.mask_scores`. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixlab.training.mask_scores import MaskScores

Floats = NDArray[np.float64]

#: How many numbers one slice of the weight matrix may hold; bounds the memory of a bootstrap on a large test split.
_SLICE = 4_000_000


@dataclass(frozen=True, eq=False)
class Predictions:
    """What one run predicted on one split.

    Args:
        ids: Case ids, ``(N,)``, unique; they pair the cases of different runs.
        targets: Class numbers ``(N,)`` for single-label tasks, or 0/1 ``(N, K)`` for multi-label ones.
        probabilities: Class probabilities, ``(N, K)``.
    """

    ids: NDArray[np.str_]
    targets: NDArray[np.generic]
    probabilities: Floats

    @property
    def multilabel(self) -> bool:
        """Whether every class is a question of its own."""
        return self.targets.ndim == 2

    def truth(self) -> Floats:
        """The truth as 0/1, ``(N, K)``."""
        if self.multilabel:
            return self.targets.astype(np.float64)
        classes = np.arange(self.probabilities.shape[1])
        return (self.targets.astype(np.int64)[:, None] == classes).astype(np.float64)

    def decided(self) -> Floats:
        """The predicted classes as 0/1, ``(N, K)``: the most probable class, or every class of at least 0.5."""
        if self.multilabel:
            return (self.probabilities >= 0.5).astype(np.float64)
        classes = np.arange(self.probabilities.shape[1])
        return (self.probabilities.argmax(axis=1)[:, None] == classes).astype(np.float64)


AnyPredictions = Predictions | MaskScores
"""Of classes, or of masks."""


@dataclass(frozen=True, eq=False)
class _Counts:
    """Weighted counts, each ``(B, K)`` but ``total``, which is ``(B, 1)``."""

    hit: Floats
    true: Floats
    said: Floats
    total: Floats
    multilabel: bool


def _mean_over(values: Floats, counted: NDArray[np.bool_]) -> Floats:
    """Mean over classes, of those that count; nan where none does."""
    number = counted.sum(axis=1)
    total = np.where(counted, values, 0.0).sum(axis=1)
    return np.divide(total, number, out=np.full(len(total), np.nan), where=number > 0)


def _ratio(top: Floats, bottom: Floats) -> Floats:
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)


def _macro_f1(c: _Counts) -> Floats:
    occurs = c.true + c.said
    return _mean_over(_ratio(2 * c.hit, occurs), (occurs > 0) | c.multilabel)


def _accuracy(c: _Counts) -> Floats:
    if not c.multilabel:
        return _ratio(c.hit.sum(axis=1), c.total[:, 0])
    right = c.total - c.true - c.said + 2 * c.hit
    return _ratio(right.sum(axis=1), c.total[:, 0] * c.hit.shape[1])


def _balanced_accuracy(c: _Counts) -> Floats:
    recall = _ratio(c.hit, c.true)
    if not c.multilabel:
        return _mean_over(recall, c.true > 0)
    negatives = c.total - c.true
    specificity = _ratio(negatives - (c.said - c.hit), negatives)
    return _mean_over((recall + specificity) / 2, (c.true > 0) & (negatives > 0))


_FROM_COUNTS: dict[str, Callable[[_Counts], Floats]] = {
    "macro_f1": _macro_f1,
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
}

#: The metrics of classes.
METRICS: tuple[str, ...] = (*_FROM_COUNTS, "auroc")
#: The metrics of masks.
MASK_METRICS: tuple[str, ...] = ("dice", "dice_unmasked")


def _auroc_one(score: Floats, truth: Floats, weights: Floats) -> Floats:
    """Weighted area under the curve of one class, ties counted half; nan where a resample lacks a side."""
    order = np.argsort(score, kind="stable")
    first = np.flatnonzero(np.r_[True, np.diff(score[order]) != 0])
    sorted_weights = weights[:, order]
    positive = np.add.reduceat(sorted_weights * truth[order], first, axis=1)
    negative = np.add.reduceat(sorted_weights * (1 - truth[order]), first, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    sides = positive.sum(axis=1) * negative.sum(axis=1)
    area = (positive * below).sum(axis=1)
    return np.divide(area, sides, out=np.full(len(area), np.nan), where=sides > 0)


def _auroc(predictions: Predictions, truth: Floats, weights: Floats) -> Floats:
    scores = predictions.probabilities
    areas = np.stack([_auroc_one(scores[:, k], truth[:, k], weights) for k in range(truth.shape[1])], axis=1)
    return _mean_over(areas, ~np.isnan(areas))


def _mean_dice(scores: MaskScores, weights: Floats, metric: str) -> Floats:
    """Mean over structures of the weighted mean over the cases in which Dice is defined."""
    dice = scores.dice(masked=metric == "dice")  # (N, K)
    defined = (~np.isnan(dice)).astype(np.float64)
    times = weights @ defined
    return _mean_over(_ratio(weights @ np.nan_to_num(dice), times), times > 0)


def case_metric(predictions: AnyPredictions, weights: Floats, metric: str = "macro_f1") -> Floats:
    """The metric of one run in every resample.

    Args:
        predictions: What the run predicted, ``N`` cases.
        weights: How often each case counts, ``(B, N)``.
        metric: One of :data:`METRICS`, of masks one of :data:`MASK_METRICS`.

    Returns:
        ``(B,)``; nan where the metric is not defined.
    """
    if isinstance(predictions, MaskScores):
        return _mean_dice(predictions, weights, metric)
    truth, decided = predictions.truth(), predictions.decided()
    rows = max(1, _SLICE // max(1, len(truth)))
    parts = []
    for start in range(0, len(weights), rows):
        some = weights[start : start + rows]
        if metric == "auroc":
            parts.append(_auroc(predictions, truth, some))
            continue
        total = some.sum(axis=1, keepdims=True)
        counts = _Counts(some @ (truth * decided), some @ truth, some @ decided, total, predictions.multilabel)
        parts.append(_FROM_COUNTS[metric](counts))
    return np.concatenate(parts)


def point_value(predictions: AnyPredictions, metric: str = "macro_f1") -> float:
    """The metric itself, every case counted once."""
    return float(case_metric(predictions, np.ones((1, len(predictions.ids))), metric)[0])
