"""The ranked table as cells that the page prints."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from mixlab.studies.report.collect import RunRecord
from mixlab.studies.report.measures import Measure, measures
from mixlab.studies.report.style import quantity
from mixlab.studies.report.summary import Average, LabelSummary, StudySummary

COST_COLUMNS = (
    ("parameters", "Parameters", "Trained and frozen parameters"),
    ("macs", "MACs", "Multiply-accumulates of one image, as the chosen backend computes them"),
    ("seconds_per_epoch", "s / epoch", "Median seconds per epoch on the machine of the run"),
    ("peak_memory_mb", "Peak MB", "Largest memory of the run's process (or device)"),
)


@dataclass(frozen=True)
class Column:
    """The head of a sortable column of numbers; ``lower``: the lowest is the best, and sorts first."""

    head: str
    title: str
    lower: bool = False


@dataclass(frozen=True)
class Cell:
    """A number with its spread, what it sorts by (None: last), a hover text and where it leads."""

    text: str
    sort: float | None
    link: str = ""
    title: str = ""
    spread: str = ""


@dataclass(frozen=True)
class Strip:
    """A small drawing on a common scale of 0 to 100: the runs, their mean, the interval of the mean."""

    mean: float
    low: float
    high: float
    dots: list[float]


@dataclass(frozen=True)
class Row:
    """One label of the ranked table."""

    label: LabelSummary
    anchor: str
    first: Cell
    cells: list[Cell]
    strip: Strip | None


def slug(text: str) -> str:
    """``text`` as part of an HTML id."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text)


def link(run: RunRecord, file: str = "") -> str:
    """The relative address of a run folder, or of a file in it."""
    return f"runs/{quote(run.name)}/{file}"


def columns(summary: StudySummary) -> list[Column]:
    """The number columns of the ranked table; the one that ranks comes first."""
    heads = [Column(measure.head, measure.title, measure.lower) for measure in measures(summary)]
    return heads + [Column(head, title) for _, head, title in COST_COLUMNS]


def ranked_rows(summary: StudySummary, key: str = "") -> list[Row]:
    """The rows of the ranked table, in the order of the ranking, labels without results last.

    Args:
        summary: The study.
        key: Goes before the ids in the page, where it shows several data sets.
    """
    scale, shown = _scale(summary), measures(summary)
    return [_row(summary, f"{key}{place}", label, scale, shown) for place, label in enumerate(summary.labels)]


def _row(
    summary: StudySummary, place: str, label: LabelSummary, scale: tuple[float, float], shown: Sequence[Measure]
) -> Row:
    anchor = f"runs-{place}-{slug(label.label)}"
    # A number of one run leads to its folder; a mean leads to the list of the runs that it is the mean of.
    target = link(label.runs[0]) if len(label.runs) == 1 else f"#{anchor}"
    cells = [score_cell(measure, label.score(measure.split, measure.metric), target) for measure in shown]
    cells += [_cost_cell(label, key, target) for key, _, _ in COST_COLUMNS]
    first = Cell(label.standing, _order(summary, label), title=_standing_title(label))
    return Row(label, anchor, first, cells, _strip(label, summary.metric, scale))


def _order(summary: StudySummary, label: LabelSummary) -> float:
    return float(summary.labels.index(label))


def _standing_title(label: LabelSummary) -> str:
    if label.rank is None:
        return "No finished run with test predictions"
    others = ", ".join(label.rank.distinguishable_from)
    return f"Distinguishable from: {others or 'none'}"


def score_cell(measure: Measure, average: Average | None, target: str = "") -> Cell:
    """Mean and spread over runs as a cell, leading to ``target``."""
    if average is None:
        return Cell(measure.text(None), None)
    title = f"{average.mean:.5f}" + ("" if average.sd is None else f", standard deviation over runs {average.sd:.5f}")
    return Cell(measure.text(average.mean), average.mean, target, title, measure.spread(average.sd))


def _cost_cell(label: LabelSummary, key: str, target: str) -> Cell:
    value = label.cost(key)
    if value is None:
        return Cell(quantity(None), None)
    title = f"{value:,.6g}"
    if key == "macs":
        parts = [(name, label.cost(k)) for name, k in (("needed", "macs_needed"), ("dense", "macs_dense"))]
        title = ", ".join([f"computed {value:,.0f}", *(f"{name} {v:,.0f}" for name, v in parts if v is not None)])
    if key in ("peak_memory_mb", "seconds_per_epoch"):
        return Cell(f"{value:.0f}" if value >= 100 else f"{value:.3g}", value, target, title)
    return Cell(quantity(value), value, target, title)


def _scale(summary: StudySummary) -> tuple[float, float]:
    values = [
        v for label in summary.labels for run in label.runs if (v := run.score("test", summary.metric)) is not None
    ]
    values += [edge for row in summary.ranking.rows for edge in row.interval]
    if not values:
        return 0.0, 1.0
    low, high = max(0.0, min(values)), min(1.0, max(values))
    return low, max(high, low + 1e-6)


def _strip(label: LabelSummary, metric: str, scale: tuple[float, float]) -> Strip | None:
    if label.rank is None:
        return None

    def place(value: float) -> float:
        return round(4 + 92 * min(1.0, max(0.0, (value - scale[0]) / (scale[1] - scale[0]))), 2)

    dots = [place(v) for run in label.runs if (v := run.score("test", metric)) is not None]
    return Strip(place(label.rank.mean), place(label.rank.interval[0]), place(label.rank.interval[1]), dots)
