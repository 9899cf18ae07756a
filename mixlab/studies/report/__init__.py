"""Reports of a study, made from its run folders and nothing else: a page, a terminal table, CSV files."""

from __future__ import annotations

from pathlib import Path

from mixlab.studies.report.collect import read_study
from mixlab.studies.report.page import build_report
from mixlab.studies.report.summary import StudySummary
from mixlab.studies.report.terminal import print_ranking, ranking_table
from mixlab.studies.statistics import Ranking

__all__ = ["StudySummary", "build_report", "print_ranking", "ranking", "ranking_table", "read_study"]


def ranking(study_dir: Path | str, metric: str = "macro_f1") -> Ranking:
    """The ranking of a study folder's finished runs on the test split.

    Raises:
        UserError: no study folder, or an unknown metric.
    """
    return StudySummary(read_study(study_dir), metric).ranking
