"""What a ranking is made of: the runs that go in, the rows, pairs and selection that come out.

:mod:`mixlab.studies.statistics` computes them and exports these names too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mixlab.studies.case_metrics import AnyPredictions

NOT_DISTINGUISHABLE = "not distinguishable"


class Run(Protocol):
    """What the statistics read of a run; :class:`Outcome` and the report's records have it."""

    @property
    def label(self) -> str:
        """What the run trained; runs of one label differ in seed and fold only."""

    @property
    def seed(self) -> int:
        """The seed of the training."""

    @property
    def fold(self) -> int | None:
        """The fold of a cross-validation."""

    def predictions(self, split: str) -> AnyPredictions | None:
        """The predictions on ``split``, None where the run has none."""


@dataclass(frozen=True)
class Outcome:
    """A run in memory: predictions by split name."""

    label: str
    seed: int
    splits: dict[str, AnyPredictions]
    fold: int | None = None

    def predictions(self, split: str) -> AnyPredictions | None:
        """The predictions on ``split``."""
        return self.splits.get(split)


@dataclass(frozen=True)
class RankRow:
    """One label.

    ``sd`` is the spread over cells (None with one), ``training_sd`` the part of it that the test cases do not explain,
    ``case_se`` the bootstrap standard error of ``mean`` over test cases, ``interval`` an interval of both sources for
    this label alone (comparisons have their own). Ranks ``best_rank`` to ``worst_rank`` are left open by the data.
    """

    label: str
    mean: float
    sd: float | None
    training_sd: float | None
    case_se: float
    interval: tuple[float, float]
    n: int
    seeds: tuple[int, ...]
    group: str
    best_rank: int
    worst_rank: int
    distinguishable_from: tuple[str, ...]

    @property
    def tied(self) -> bool:
        """Whether the data leave more than one rank open."""
        return self.best_rank != self.worst_rank


@dataclass(frozen=True)
class Pair:
    """The comparison ``a - b`` over ``n`` common cells: simultaneous interval, raw and adjusted p value, verdict."""

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    p_adjusted: float
    verdict: str
    training_se: float | None
    case_se: float
    n: int

    @property
    def distinguishable(self) -> bool:
        """Whether the verdict names a better one."""
        return self.verdict != NOT_DISTINGUISHABLE


@dataclass(frozen=True)
class Ranking:
    """Rows by falling mean, every pair in the order of the rows, and what the ranking rests on.

    ``seed_df`` are the degrees of freedom of the training variance; ``test_cases_only`` says that no label was trained
    twice, so that nothing is known about another seed. ``n_groups`` is 0 where cases are not grouped.
    """

    metric: str
    split: str
    alpha: float
    rows: tuple[RankRow, ...] = ()
    pairs: tuple[Pair, ...] = ()
    n_seeds: int = 0
    n_folds: int = 0
    n_cases: int = 0
    n_groups: int = 0
    seed_df: int = 0
    test_cases_only: bool = False
    notes: tuple[str, ...] = ()

    @property
    def leaders(self) -> tuple[str, ...]:
        """The labels that no other label is distinguishably better than, best mean first."""
        return tuple(row.label for row in self.rows if row.best_rank == 1)

    def row(self, label: str) -> RankRow:
        """The row of ``label``; KeyError if there is none."""
        return {row.label: row for row in self.rows}[label]

    def pair(self, a: str, b: str) -> Pair:
        """The comparison of two labels, as stored (its ``a`` may be either); KeyError if there is none."""
        return {frozenset((p.a, p.b)): p for p in self.pairs}[frozenset((a, b))]


@dataclass(frozen=True)
class Selection:
    """The label that validation chose, and what the test split then says of it (None without test predictions)."""

    label: str
    metric: str
    validation: float
    test: float | None
    test_sd: float | None
    n: int
    candidates: dict[str, float]
