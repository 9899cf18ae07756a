"""What the report says in numbers and sentences; page, terminal and CSV files all take it from here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mixlab.studies.report.collect import RunRecord, StudyRecord
from mixlab.studies.statistics import Ranking, RankRow, Selection, rank, select
from mixlab.training.mask_scores import MaskScores

#: How metrics are written in sentences and table heads.
METRIC_NAMES = {
    "macro_f1": "macro F1",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "auroc": "AUROC",
    "dice": "Dice",
    "dice_unmasked": "unmasked Dice",
    "hd95": "HD95",
    "loss": "loss",
}


@dataclass(frozen=True)
class Average:
    """Mean and spread over runs (None with one run)."""

    mean: float
    sd: float | None


@dataclass(eq=False)
class LabelSummary:
    """One label: its rank (None without test predictions), its finished runs, and all its runs."""

    label: str
    rank: RankRow | None
    runs: list[RunRecord]
    every: list[RunRecord]

    @property
    def mixer(self) -> str:
        """The token mixer's name."""
        return (self.runs or self.every)[0].mixer

    def test(self, metric: str) -> Average | None:
        """Mean and spread of a test metric."""
        return self.score("test", metric)

    def score(self, split: str, metric: str) -> Average | None:
        """Mean and spread of a metric over the label's finished runs."""
        return average([run.score(split, metric) for run in self.runs])

    def cost(self, key: str) -> float | None:
        """Mean of a number of the runs, such as ``parameters`` or ``seconds_per_epoch``; memory is the largest."""
        values = [v for run in self.runs if (v := run.value(key)) is not None]
        if not values:
            return None
        return max(values) if key == "peak_memory_mb" else float(np.mean(values))

    @property
    def standing(self) -> str:
        """The rank in honest words."""
        if self.rank is None:
            return "no result"
        if not self.rank.tied:
            return str(self.rank.best_rank)
        return f"{self.rank.best_rank} to {self.rank.worst_rank}, not distinguishable"


def average(values: Sequence[float | None]) -> Average | None:
    """Mean and spread of those values that exist."""
    there = [v for v in values if v is not None]
    if not there:
        return None
    return Average(float(np.mean(there)), float(np.std(there, ddof=1)) if len(there) > 1 else None)


def join(names: Sequence[str], most: int = 6) -> str:
    """``a, b and c``; beyond ``most`` names the rest is counted."""
    if len(names) > most:
        return ", ".join(names[: most - 1]) + f" and {len(names) - most + 1} others"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def count(number: int, noun: str) -> str:
    """``1 seed``, ``2 seeds``."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


@dataclass(eq=False)
class StudySummary:
    """A study with its ranking on test and its selection on validation.

    Args:
        study: The study, or its part on one data set.
        metric: What ranks; by default macro F1, of masks Dice.
    """

    study: StudyRecord
    metric: str = ""

    def __post_init__(self) -> None:
        self.metric = self.metric or ("dice" if self.study.masks else "macro_f1")

    @cached_property
    def ranking(self) -> Ranking:
        """The ranking on the test split."""
        return rank(self.study.finished, self.metric)

    @cached_property
    def selection(self) -> Selection | None:
        """The label that validation chooses."""
        return select(self.study.finished, self.metric)

    def undefined(self, split: str) -> list[RunRecord]:
        """Finished runs whose predictions on ``split`` define no score: no case has a structure, true or predicted."""
        found = [(run, run.predictions(split)) for run in self.study.finished]
        return [run for run, p in found if isinstance(p, MaskScores) and np.isnan(p.dice()).all()]

    @cached_property
    def labels(self) -> list[LabelSummary]:
        """Every label, ranked ones first, in the order of the ranking."""
        ranked = {row.label: row for row in self.ranking.rows}
        order = [*ranked, *(label for label in self.study.labels if label not in ranked)]
        return [
            LabelSummary(
                label,
                ranked.get(label),
                [run for run in self.study.finished if run.label == label],
                [run for run in self.study.runs if run.label == label],
            )
            for label in order
        ]

    @property
    def metric_name(self) -> str:
        """The metric in words."""
        return METRIC_NAMES.get(self.metric, self.metric)

    @property
    def complete(self) -> bool:
        """Whether every run of the study is finished."""
        return not self.study.missing and all(run.finished for run in self.study.runs)

    def headline(self) -> str:
        """Who leads, in one sentence that claims no more than the data."""
        ranking, names = self.ranking, [row.label for row in self.ranking.rows]
        if not names:
            return "No run has test results yet."
        if len(names) == 1:
            return f"{names[0]} is the only mixer with results: there is nothing to compare it with."
        leaders, others = list(ranking.leaders), [n for n in names if n not in ranking.leaders]
        if not others:
            if any(p.distinguishable for p in ranking.pairs):
                return f"{join(leaders)} lead and are not distinguishable from one another."
            return f"The {len(names)} mixers are not distinguishable."
        if len(leaders) == 1:
            return f"{leaders[0]} leads, distinguishably ahead of {'all others' if self._clear() else 'some others'}."
        return f"{join(leaders)} lead and are not distinguishable from one another."

    def _clear(self) -> bool:
        first = self.ranking.rows[0]
        return first.worst_rank == 1

    def basis(self) -> list[str]:
        """The sentences under the headline: what was measured, what was chosen by validation, what is missing."""
        ranking, sentences = self.ranking, []
        if ranking.rows:
            runs = count(ranking.n_seeds, "seed") + (f" and {ranking.n_folds} folds" if ranking.n_folds > 1 else "")
            cases = count(ranking.n_cases, "test case")
            cases += f" in {count(ranking.n_groups, 'group')}" if ranking.n_groups else ""
            sentences.append(f"Ranked by test {self.metric_name}: {runs}, {cases}.")
        behind = [row.label for row in ranking.rows if row.label not in ranking.leaders]
        if behind and len(ranking.leaders) > 1:
            sentences.append(f"Distinguishably behind at least one of them: {join(behind)}.")
        if ranking.test_cases_only and len(ranking.rows) > 1:
            sentences.append(
                "With one training each, differences speak of other test cases only: another seed may change the order."
            )
        if self.selection is not None:
            sentences.append(self._chosen(self.selection))
        sentences += self.progress()
        return sentences

    def progress(self) -> list[str]:
        """How many runs are finished, in one sentence, or nothing when all are."""
        if self.complete:
            return []
        states, total = self.state_counts(), len(self.study.runs) + len(self.study.missing)
        rest = [f"{n} {state}" for state, n in states.items() if state != "finished"]
        return [f"{states.get('finished', 0)} of {total} runs are finished ({', '.join(rest)})."]

    def _chosen(self, chosen: Selection) -> str:
        text = f"Validation {self.metric_name} chooses {chosen.label} ({chosen.validation:.3f}"
        if len(chosen.candidates) < 2:
            text = f"{chosen.label} has validation {self.metric_name} {chosen.validation:.3f}"
        else:
            text += ")"
        if chosen.test is None:
            return text + "."
        spread = "" if chosen.test_sd is None else f" ± {chosen.test_sd:.3f}"
        over = f" over {count(chosen.n, 'run')}" if chosen.n > 1 else ""
        return f"{text}; its test {self.metric_name} is {chosen.test:.3f}{spread}{over}."

    def state_counts(self) -> dict[str, int]:
        """How many runs are in which state, missing ones included."""
        states = [("finished" if run.finished else run.state) for run in self.study.runs]
        found = {state: states.count(state) for state in sorted(set(states), key=lambda s: (s != "finished", s))}
        return found | ({"missing": len(self.study.missing)} if self.study.missing else {})
