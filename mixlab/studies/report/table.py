"""The ranked table and the table of all runs, as cells that the page prints; and the same as CSV files."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from mixlab.studies.report.collect import RunRecord, StudyRecord
from mixlab.studies.report.stand_ins import stand_ins_of
from mixlab.studies.report.style import quantity, score
from mixlab.studies.report.summary import METRIC_NAMES, Average, LabelSummary, StudySummary
from mixlab.training.files import write_text

#: The metrics of the ranked table, after the one that ranks.
METRICS = ("macro_f1", "balanced_accuracy", "accuracy", "auroc")
COST_COLUMNS = (
    ("parameters", "Parameters", "Trained and frozen parameters"),
    ("macs", "MACs", "Multiply-accumulates of one image, as the chosen backend computes them"),
    ("seconds_per_epoch", "s / epoch", "Median seconds per epoch on the machine of the run"),
    ("peak_memory_mb", "Peak MB", "Largest memory of the run's process (or device)"),
)


@dataclass(frozen=True)
class Column:
    """The head of a sortable column."""

    head: str
    title: str
    numeric: bool = True


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
    ordered = sorted(METRICS, key=lambda metric: metric != summary.metric)
    heads = [Column(METRIC_NAMES[m][:1].upper() + METRIC_NAMES[m][1:], f"Test {METRIC_NAMES[m]}") for m in ordered]
    return heads + [Column(head, title) for _, head, title in COST_COLUMNS]


def ranked_rows(summary: StudySummary, key: str = "") -> list[Row]:
    """The rows of the ranked table, in the order of the ranking, labels without results last.

    Args:
        summary: The study.
        key: Goes before the ids in the page, where it shows several data sets.
    """
    scale = _scale(summary)
    return [_row(summary, f"{key}{place}", label, scale) for place, label in enumerate(summary.labels)]


def _row(summary: StudySummary, place: str, label: LabelSummary, scale: tuple[float, float]) -> Row:
    anchor = f"runs-{place}-{slug(label.label)}"
    # A number of one run leads to its folder; a mean leads to the list of the runs that it is the mean of.
    target = link(label.runs[0]) if len(label.runs) == 1 else f"#{anchor}"
    ordered = sorted(METRICS, key=lambda metric: metric != summary.metric)
    cells = [_score_cell(label.test(metric), target) for metric in ordered]
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


def _score_cell(average: Average | None, target: str) -> Cell:
    if average is None:
        return Cell(score(None), None)
    spread = "" if average.sd is None else f"± {average.sd:.3f}"
    title = f"{average.mean:.5f}" + ("" if average.sd is None else f", standard deviation over runs {average.sd:.5f}")
    return Cell(score(average.mean), average.mean, target, title, spread)


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


RUN_FIELDS = ("data", "label", "seed", "fold", "state", "folder", "val_macro_f1")
RUN_VALUES = ("parameters", "macs", "macs_needed", "macs_dense", "seconds_per_epoch", "total_seconds", "peak_memory_mb")


def write_results(study: StudyRecord, more: Mapping[str, Sequence[object]] | None = None) -> Path:
    """Write ``results.csv``: a row a run, finished or not.

    Args:
        study: The study.
        more: Further columns by name, a value for each of ``study.runs``.
    """
    head = [*RUN_FIELDS, *(f"test_{metric}" for metric in METRICS), "test_loss", *RUN_VALUES, "best_epoch", "device"]
    rows = [
        [run.data, run.label, run.seed, run.fold, run.state, f"runs/{run.name}", run.score("val", "macro_f1")]
        + [run.score("test", metric) for metric in (*METRICS, "loss")]
        + [run.summary.get(key) for key in (*RUN_VALUES, "best_epoch")]
        + [run.summary.get("device") or run.environment.get("device")]
        + [values[place] for values in (more or {}).values()]
        for place, run in enumerate(study.runs)
    ]
    return _write_csv(study.folder / "results.csv", [*head, *(more or {})], rows)


def write_ranking(folder: Path, parts: Sequence[StudySummary]) -> Path:
    """Write ``ranking.csv``: a row a data set and label, with its ranks, spread by source, and costs.

    Where there are stand-ins, a column ``stand_ins`` says whose scores mean nothing.
    """
    head = ["data", "label", "best_rank", "worst_rank", "group", "metric", "mean", "sd_over_runs", "sd_training"]
    head += ["se_test_cases", "interval_low", "interval_high", "runs", "seeds", "chosen_by_validation"]
    head += [key for key, _, _ in COST_COLUMNS]
    rows = [row for part in parts for row in _ranking_rows(part)]
    stood_in = [any(map(stand_ins_of, label.every)) for part in parts for label in part.labels]
    if any(stood_in):
        head, rows = [*head, "stand_ins"], [[*row, told] for row, told in zip(rows, stood_in, strict=True)]
    return _write_csv(folder / "ranking.csv", head, rows)


def _ranking_rows(summary: StudySummary) -> list[list[object]]:
    chosen = summary.selection.label if summary.selection is not None else None
    rows = []
    for label in summary.labels:
        r = label.rank
        ranked: list[object] = [None] * 12
        if r is not None:
            ranked = [r.best_rank, r.worst_rank, r.group, summary.metric, r.mean, r.sd, r.training_sd, r.case_se]
            ranked += [*r.interval, r.n, " ".join(map(str, r.seeds))]
        costs = [label.cost(key) for key, _, _ in COST_COLUMNS]
        rows.append([label.every[0].data, label.label, *ranked, label.label == chosen, *costs])
    return rows


def _write_csv(path: Path, head: list[str], rows: list[list[object]]) -> Path:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([["" if value is None else value for value in row] for row in rows])
    write_text(path, buffer.getvalue())
    return path
