"""Reports of a study, made from its run folders and nothing else: a page, a terminal table, CSV files."""

from __future__ import annotations

from pathlib import Path

from mixlab.errors import expected, unknown
from mixlab.studies.case_metrics import MASK_METRICS, METRICS
from mixlab.studies.report.collect import by_data, read_study
from mixlab.studies.report.page import build_report
from mixlab.studies.report.summary import StudySummary
from mixlab.studies.report.terminal import print_ranking, ranking_table
from mixlab.studies.statistics import Ranking

__all__ = ["StudySummary", "build_report", "print_ranking", "ranking", "ranking_table", "read_study"]


def ranking(study_dir: Path | str, metric: str = "", data: str | None = None) -> Ranking:
    """The ranking of a study folder's finished runs on the test split.

    Args:
        study_dir: The study folder.
        metric: ``macro_f1``, ``accuracy``, ``balanced_accuracy`` or ``auroc``; for masks ``dice`` or
            ``dice_unmasked``. By default macro F1, for masks Dice.
        data: The data set, where the study has several.

    Raises:
        UserError: no study folder, a metric that is unknown or not of the data set's task, or a data set that is
            unknown or not named among several.
    """
    parts = {part.runs[0].data if part.runs else "": part for part in by_data(read_study(study_dir))}
    if data is None and len(parts) == 1:
        data = next(iter(parts))
    if data is None:
        raise expected("ranking", "the name of a data set, because the study has several", data, " or ".join(parts))
    if data not in parts:
        raise unknown("data set of this study", data, parts)
    known = MASK_METRICS if parts[data].masks else METRICS
    if metric and metric not in known:
        raise unknown("metric", metric, known)
    return StudySummary(parts[data], metric).ranking
