"""Runs whose data or weights were stand-ins: they show that a study runs, and their scores mean nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mixlab.studies.report.collect import RunRecord


@dataclass(frozen=True)
class StandIns:
    """What the page warns of.

    Args:
        labels: Labels with such runs.
        what: What was a stand-in, as the runs say it.
        runs: How many such runs there are.
        total: How many runs there are.
    """

    labels: list[str]
    what: list[str]
    runs: int
    total: int

    def headline(self) -> str:
        """The warning in one sentence."""
        if self.runs == self.total:
            return "Stand-ins: the scores of this report mean nothing."
        return "Stand-ins: some scores of this report mean nothing."

    def sentence(self) -> str:
        """Which runs, and why."""
        whose = "All runs" if self.runs == self.total else f"{self.runs} of {self.total} runs"
        return f"{whose} had stand-ins in the place of data or weights. They show that the study runs, and no more."


def stand_ins_of(run: RunRecord) -> list[str]:
    """What was a stand-in in a run; empty for a real one.

    Runs say it under ``stand_ins``. One that was asked for stand-ins by name, without a word there, has them too.
    """
    told = run.config.get("stand_ins") or []
    if not told:
        weights = (run.config.get("model") or {}).get("pretrained")
        told = [run.data] if run.data.startswith("stand-in:") else []
        told += [weights] if isinstance(weights, str) and Path(weights).name.startswith("stand-in-") else []
    return [str(item) for item in (told if isinstance(told, list) else [told])]


def find_stand_ins(runs: Sequence[RunRecord]) -> StandIns | None:
    """The runs with stand-ins; None where there are none."""
    found = {run.name: (run, told) for run in runs if (told := stand_ins_of(run))}
    if not found:
        return None
    labels = list(dict.fromkeys(run.label for run, _ in found.values()))
    what = list(dict.fromkeys(item for _, told in found.values() for item in told))
    return StandIns(labels, what, len(found), len(runs))


def stand_in_columns(runs: Sequence[RunRecord]) -> dict[str, list[object]]:
    """The column ``stand_ins`` for ``results.csv``; none where every run is a real one."""
    values: list[object] = ["; ".join(stand_ins_of(run)) or None for run in runs]
    return {"stand_ins": values} if any(values) else {}
