"""The tables of all runs and of the ranking as CSV files, for a spreadsheet or a script."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from mixlab.studies.report.collect import StudyRecord, by_data
from mixlab.studies.report.measures import SHOWN, SHOWN_OF_MASKS, distance_unit, run_unit
from mixlab.studies.report.stand_ins import stand_ins_of
from mixlab.studies.report.summary import StudySummary
from mixlab.studies.report.table import COST_COLUMNS
from mixlab.training.files import write_text

RUN_FIELDS = ("data", "label", "seed", "fold", "state", "folder")
RUN_VALUES = ("parameters", "macs", "macs_needed", "macs_dense", "seconds_per_epoch", "total_seconds", "peak_memory_mb")


def write_results(study: StudyRecord, more: Mapping[str, Sequence[object]] | None = None) -> Path:
    """Write ``results.csv``: a row a run, finished or not. A study of both classes and masks has the scores of both.

    Args:
        study: The study.
        more: Further columns by name, a value for each of ``study.runs``.
    """
    kinds = {part.masks for part in by_data(study)}
    ranks = [metric for metric, masks in (("macro_f1", False), ("dice", True)) if masks in kinds]
    tested = [*(SHOWN if False in kinds else ()), *(SHOWN_OF_MASKS if True in kinds else ())]
    head = [*RUN_FIELDS, *(f"val_{metric}" for metric in ranks), *(f"test_{metric}" for metric in (*tested, "loss"))]
    head += [*(["hd95_unit"] if True in kinds else []), *RUN_VALUES, "best_epoch", "device"]
    rows: list[list[object]] = [
        [run.data, run.label, run.seed, run.fold, run.state, f"runs/{run.name}"]
        + [run.score("val", metric) for metric in ranks]
        + [run.score("test", metric) for metric in (*tested, "loss")]
        + ([run_unit(run)] if True in kinds else [])
        + [run.summary.get(key) for key in (*RUN_VALUES, "best_epoch")]
        + [run.summary.get("device") or run.environment.get("device")]
        + [values[place] for values in (more or {}).values()]
        for place, run in enumerate(study.runs)
    ]
    return _write_csv(study.folder / "results.csv", [*head, *(more or {})], rows)


def write_ranking(folder: Path, parts: Sequence[StudySummary]) -> Path:
    """Write ``ranking.csv``: a row a data set and label, with its ranks, spread by source, and costs.

    Masks have columns of their distances. Where there are stand-ins, a column ``stand_ins`` says whose scores mean
    nothing.
    """
    head = ["data", "label", "best_rank", "worst_rank", "group", "metric", "mean", "sd_over_runs", "sd_training"]
    head += ["se_test_cases", "interval_low", "interval_high", "runs", "seeds", "chosen_by_validation"]
    head += [key for key, _, _ in COST_COLUMNS]
    rows = [row for part in parts for row in _ranking_rows(part)]
    if any(part.study.masks for part in parts):
        head += ["test_hd95", "hd95_unit"]
        distances = [more for part in parts for more in _distances(part)]
        rows = [[*row, *more] for row, more in zip(rows, distances, strict=True)]
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


def _distances(summary: StudySummary) -> list[list[object]]:
    """Mean 95 % Hausdorff distance of each label and its unit; empty for classes."""
    found = [label.test("hd95") for label in summary.labels]
    return [[None, None] if average is None else [average.mean, distance_unit(summary)] for average in found]


def _write_csv(path: Path, head: list[str], rows: list[list[object]]) -> Path:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([["" if value is None else value for value in row] for row in rows])
    write_text(path, buffer.getvalue())
    return path
