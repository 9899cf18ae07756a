"""Which labels of a study differ, given that both training and the test cases are samples.

The model is that of multi-reader, multi-case studies (Obuchowski and Rockette 1995; Hillis 2007), with a training, that
is one ``(seed, fold)`` cell, in the place of a reader. The score of label ``a`` in cell ``s`` on the test cases is::

    score[a, s] = mean[a] + cell[s] + training[a, s] + error[a, s]

``cell`` is what a seed does to every label alike and cancels, because labels are compared within cells. ``training`` is
what a repeated training changes. ``error`` is the choice of test cases, correlated between all scores because all share
the cases; its covariances come from a bootstrap that draws the same cases for every run.

For a pair over ``r`` common cells ``difference`` is the mean of the paired differences, and its variance is
``training / r + cases``:

* ``cases`` is the bootstrap variance of the difference itself;
* ``training`` is the mean square of the label by cell residuals, *pooled over all labels* (with two seeds a pair of its
  own would have one degree of freedom), or midway to the pair's own where that is larger, against labels of unequal
  spread; less the part of it that the bootstrap explains by test cases, so that nothing counts twice, and never below
  zero. With disjoint test folds ``1 / r`` becomes
  ``1 / r + 1 / (folds - 1)`` (Nadeau and Bengio 2003), because the training sets overlap.

The critical value is Tukey's studentised range over all pairs, so intervals are simultaneous and agree with verdicts;
for the uncertain share (training) with the residuals' degrees of freedom, for the rest with infinitely many (Cochran
and Cox). With one cell there is no training variance to estimate: the ranking then speaks of test cases only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mixlab.errors import expected, unknown
from mixlab.studies.case_metrics import MASK_METRICS, METRICS, AnyPredictions, case_metric, point_value
from mixlab.studies.comparisons import critical_value, letter_groups, mean_variance, p_value
from mixlab.studies.ranking import NOT_DISTINGUISHABLE, Outcome, Pair, Ranking, RankRow, Run, Selection
from mixlab.studies.resampling import Cell, group_count, resampled, usable

__all__ = ["NOT_DISTINGUISHABLE", "Outcome", "Pair", "RankRow", "Ranking", "Run", "Selection", "rank", "select"]

Floats = NDArray[np.float64]


@dataclass
class _Table:
    """Scores by (label, cell) and their covariance over test cases."""

    labels: list[str]
    cells: list[list[Cell]]
    values: list[Floats]
    index: dict[tuple[str, Cell], int]
    covariance: Floats
    overlap: float
    notes: list[str] = field(default_factory=list)

    def block(self, a: str, b: str, cells: Sequence[Cell]) -> Floats:
        return self.covariance[np.ix_([self.index[a, c] for c in cells], [self.index[b, c] for c in cells])]

    def spread(self, cells: int) -> float:
        """The factor between the variance of one training and that of the mean over ``cells`` trainings."""
        return 1.0 / cells + self.overlap


def _tabulate(
    found: dict[tuple[str, Cell], AnyPredictions], metric: str, resamples: int, random_state: int, notes: list[str]
) -> tuple[_Table, int]:
    ids = np.unique(np.concatenate([p.ids for p in found.values()]))
    weights, widening = resampled(list(found.values()), ids, resamples, random_state, notes)
    boot = np.stack([case_metric(p, weights[:, np.searchsorted(ids, p.ids)], metric) for p in found.values()])
    boot = boot[:, ~np.isnan(boot).any(axis=0)]
    covariance = widening * np.atleast_2d(np.cov(boot)) if boot.shape[1] > 1 else np.zeros((len(found), len(found)))
    folds = sorted({cell[1] for _, cell in found})
    disjoint = len(folds) > 1 and not np.isin(_cases_of_fold(found, folds[0]), _cases_of_fold(found, folds[1])).any()
    if disjoint:
        notes.append("folds share training cases: their spread is widened (Nadeau and Bengio), an approximation")
    labels = sorted({label for label, _ in found})
    cells = [sorted(cell for name, cell in found if name == label) for label in labels]
    index = {key: i for i, key in enumerate(found)}
    scores = {key: point_value(p, metric) for key, p in found.items()}
    values = [np.array([scores[label, c] for c in own]) for label, own in zip(labels, cells, strict=True)]
    overlap = 1.0 / (len(folds) - 1) if disjoint else 0.0
    return _Table(labels, cells, values, index, covariance, overlap, notes), len(ids)


def _cases_of_fold(found: dict[tuple[str, Cell], AnyPredictions], fold: int) -> NDArray[np.str_]:
    return next(p.ids for (_, cell), p in found.items() if cell[1] == fold)


def _residual_mean_square(table: _Table) -> tuple[float | None, int]:
    """Mean square and degrees of freedom of ``score ~ label + cell``, pooled over all labels."""
    cells = sorted({c for own in table.cells for c in own})
    rows = [(i, cells.index(c)) for i, own in enumerate(table.cells) for c in own]
    design = np.zeros((len(rows), len(table.labels) + len(cells)))
    for n, (i, j) in enumerate(rows):
        design[n, i] = design[n, len(table.labels) + j] = 1.0
    score = np.concatenate(table.values)
    freedom = len(rows) - int(np.linalg.matrix_rank(design))
    if freedom == 0:
        return None, 0
    residual = score - design @ np.linalg.lstsq(design, score, rcond=None)[0]
    return float(residual @ residual) / freedom, freedom


def _paired(table: _Table, a: int, b: int, cells: Sequence[Cell]) -> Floats:
    """The differences of two labels, cell by cell."""
    first, second = (dict(zip(table.cells[i], table.values[i], strict=True)) for i in (a, b))
    return np.array([first[c] - second[c] for c in cells])


def _compare(table: _Table, a: int, b: int, pooled: float | None, freedom: int, alpha: float) -> Pair:
    name_a, name_b = table.labels[a], table.labels[b]
    common = [c for c in table.cells[a] if c in table.cells[b]]
    if not common:
        table.notes.append(f"{name_a} and {name_b} share no seed and fold: not compared")
        return Pair(name_a, name_b, np.nan, np.nan, np.nan, 1.0, 1.0, NOT_DISTINGUISHABLE, None, np.nan, 0)
    paired = _paired(table, a, b, common)
    square = None if pooled is None else 2.0 * pooled
    if square is not None and len(common) > 1:
        square = max(square, (square + float(paired.var(ddof=1))) / 2)
    block = table.block(name_a, name_a, common) + table.block(name_b, name_b, common)
    block = block - table.block(name_a, name_b, common) - table.block(name_b, name_a, common)
    v = mean_variance(square, block, table.spread(len(common)))
    difference, error, many = float(paired.mean()), float(np.sqrt(v.total)), len(table.labels)
    statistic = difference / error if error > 1e-12 else 0.0
    reach = critical_value(alpha, many, v.seed_share, freedom) * error
    verdict = NOT_DISTINGUISHABLE
    if abs(difference) > reach and error > 1e-12:
        verdict = "a better" if difference > 0 else "b better"
    return Pair(
        name_a,
        name_b,
        difference,
        low=difference - reach,
        high=difference + reach,
        p=p_value(statistic, 2, v.seed_share, freedom),
        p_adjusted=p_value(statistic, many, v.seed_share, freedom),
        verdict=verdict,
        training_se=None if v.training is None else float(np.sqrt(v.training)),
        case_se=float(np.sqrt(v.cases)),
        n=len(common),
    )


def _within(table: _Table) -> tuple[float | None, int]:
    """Mean square and degrees of freedom of the scores within labels, pooled; what cells have in common included."""
    several = [v for v in table.values if len(v) > 1]
    freedom = sum(len(v) - 1 for v in several)
    return (sum(float(v.var()) * len(v) for v in several) / freedom, freedom) if freedom else (None, 0)


def _row(
    table: _Table, i: int, order: list[str], pairs: Sequence[Pair], letters: dict[str, str], alpha: float
) -> RankRow:
    label, own, values = table.labels[i], table.cells[i], table.values[i]
    square, freedom = _within(table)
    sd = float(values.std(ddof=1)) if len(values) > 1 else None
    if square is not None and sd is not None:
        square = max(square, (square + sd**2) / 2)
    block = table.block(label, label, own)
    v = mean_variance(square, block, table.spread(len(own)))
    mean, reach = float(values.mean()), critical_value(alpha, 2, v.seed_share, freedom) * float(np.sqrt(v.total))
    winners = [(p.a, p.b) if p.verdict == "a better" else (p.b, p.a) for p in pairs if p.distinguishable]
    above = {winner for winner, loser in winners if loser == label}
    below = {loser for winner, loser in winners if winner == label}
    return RankRow(
        label,
        mean,
        sd,
        training_sd=None if sd is None else float(np.sqrt(mean_variance(sd**2, block, 1.0).training or 0.0)),
        case_se=float(np.sqrt(v.cases)),
        interval=(mean - reach, mean + reach),
        n=len(own),
        seeds=tuple(sorted({seed for seed, _ in own})),
        group=letters[label],
        best_rank=1 + len(above),
        worst_rank=len(order) - len(below),
        distinguishable_from=tuple(name for name in order if name in above | below),
    )


def rank(
    runs: Iterable[Run],
    metric: str = "macro_f1",
    split: str = "test",
    *,
    alpha: float = 0.05,
    resamples: int = 1000,
    random_state: int = 0,
) -> Ranking:
    """Rank labels by ``metric`` and say which pairs differ; the module says how.

    Args:
        runs: Any runs; those without predictions on ``split`` are left out with a note.
        metric: One of ``macro_f1``, ``accuracy``, ``balanced_accuracy``, ``auroc``; for masks ``dice`` or
            ``dice_unmasked``. Masks of one group (a patient) are drawn together. A run for which it is not defined
            (no structure anywhere, in truth or prediction) is left out with a note.
        split: ``test`` or ``val``. Nothing is ever chosen by a ranking on test: see :func:`select`.
        alpha: The probability of any false winner in the whole study, all pairs together.
        resamples: Bootstrap resamples of the test cases.
        random_state: Of the bootstrap. The same runs give the same ranking.

    Returns:
        A ranking, empty when no run has predictions.

    Raises:
        UserError: unknown metric, or an ``alpha`` outside 0.001 to 0.5.
    """
    if metric not in (*METRICS, *MASK_METRICS):
        raise unknown("metric", metric, (*METRICS, *MASK_METRICS))
    if not 0.001 <= alpha <= 0.5:
        raise expected("alpha", "a probability from 0.001 to 0.5", alpha, "0.05")
    notes: list[str] = []
    found = usable(runs, metric, split, notes)
    if not found:
        return Ranking(metric, split, alpha, notes=tuple(dict.fromkeys(notes)))
    table, cases = _tabulate(found, metric, resamples, random_state, notes)
    pooled, freedom = _residual_mean_square(table)
    if freedom == 0:  # no cell holds two labels that were both trained twice: what cells share cannot be taken out
        pooled, freedom = _within(table)
    by_mean = sorted(range(len(table.labels)), key=lambda i: (-float(table.values[i].mean()), table.labels[i]))
    order = [table.labels[i] for i in by_mean]
    pairs = [_compare(table, a, b, pooled, freedom, alpha) for a, b in combinations(by_mean, 2)]
    letters = letter_groups(order, {frozenset((p.a, p.b)) for p in pairs if p.distinguishable})
    rows = tuple(_row(table, i, order, pairs, letters, alpha) for i in by_mean)
    every = {c for own in table.cells for c in own}
    if any(set(own) != every for own in table.cells):
        notes.append("not every label has every seed and fold: pairs are compared over what they share")
    if freedom == 0:
        notes.append("no label was trained twice: the comparison speaks of other test cases, not of another training")
    seeds, folds = {s for s, _ in every}, {f for _, f in every if f >= 0}
    return Ranking(
        metric,
        split,
        alpha,
        rows,
        tuple(pairs),
        n_seeds=len(seeds),
        n_folds=len(folds),
        n_cases=cases,
        n_groups=group_count(list(found.values())),
        seed_df=freedom,
        test_cases_only=freedom == 0,
        notes=tuple(dict.fromkeys(notes)),
    )


def select(runs: Iterable[Run], metric: str = "macro_f1") -> Selection | None:
    """Choose a label by its mean *validation* score; the test split is looked at only afterwards.

    Only labels with as many validated runs as the most complete label are candidates: a mean over fewer seeds,
    because others diverged, is no better for it.

    Returns:
        None when no run has validation predictions for which the metric is defined.
    """
    if metric not in (*METRICS, *MASK_METRICS):
        raise unknown("metric", metric, (*METRICS, *MASK_METRICS))
    runs = list(runs)
    found = usable(runs, metric, "val", [])
    scores: dict[str, list[float]] = {}
    for (label, _), predictions in found.items():
        scores.setdefault(label, []).append(point_value(predictions, metric))
    if not scores:
        return None
    most = max(map(len, scores.values()))
    candidates = {label: float(np.mean(values)) for label, values in sorted(scores.items()) if len(values) == most}
    label = max(candidates, key=lambda name: candidates[name])
    tested = usable([run for run in runs if run.label == label], metric, "test", [])
    test = [point_value(p, metric) for p in tested.values()]
    sd = float(np.std(test, ddof=1)) if len(test) > 1 else None
    return Selection(label, metric, candidates[label], float(np.mean(test)) if test else None, sd, most, candidates)
