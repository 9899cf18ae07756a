"""What the report has to say about runs of masks whose numbers do not agree, or cannot be shown."""

from __future__ import annotations

from mixlab.studies.report.collect import RunRecord
from mixlab.studies.report.measures import run_unit
from mixlab.studies.report.style import distance
from mixlab.studies.report.summary import StudySummary, join
from mixlab.training.mask_scores import MaskScores

#: Distances are stored with seven digits; more than this share between two of them is a disagreement.
TOLERANCE = 5e-3


def mask_remarks(summary: StudySummary) -> list[str]:
    """Remarks on the finished runs of one data set."""
    study = summary.study
    notes = [
        f"{run.name}: no {split} case has a structure, true or predicted; the run has no score there"
        for split in ("val", "test")
        for run in summary.undefined(split)
    ]
    for run in study.finished:
        predictions = run.predictions("test")
        if isinstance(predictions, MaskScores):
            if predictions.hit.shape[1] != len(study.structures):
                got = f"{predictions.hit.shape[1]} structures, the data card names {len(study.structures)}"
                notes.append(f"{run.name}: predictions of {got}; not shown structure by structure")
            notes += _distance(run, predictions)
    units = sorted({unit for run in study.finished if (unit := run_unit(run))})
    if len(units) > 1:
        notes.append(f"HD95 is in {join(units)}, not the same in all runs: its means say nothing")
    return notes


def _distance(run: RunRecord, predictions: MaskScores) -> list[str]:
    """Whether the stored distance and the one computed again from the stored predictions differ."""
    stored, again = run.score("test", "hd95"), predictions.metrics().get("hd95")
    if stored is None or again is None or abs(again - stored) <= TOLERANCE * max(1.0, stored):
        return []
    return [f"{run.name}: summary.json says hd95 {distance(stored)}, its predictions give {distance(again)}"]
