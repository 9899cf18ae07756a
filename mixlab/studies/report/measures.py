"""Which numbers of a run's summary the tables show, for studies of classes and of masks."""

from __future__ import annotations

from dataclasses import dataclass

from mixlab.studies.report.collect import RunRecord
from mixlab.studies.report.style import distance, score
from mixlab.studies.report.summary import METRIC_NAMES, StudySummary

#: The metrics of classes in tables, after the one that ranks.
SHOWN = ("macro_f1", "balanced_accuracy", "accuracy", "auroc")
#: Those of masks; the unmasked one only where a set has ignored pixels.
SHOWN_OF_MASKS = ("dice", "hd95", "dice_unmasked")


@dataclass(frozen=True)
class Measure:
    """A number of ``summary.json``.

    Args:
        split: ``test`` or ``val``.
        metric: Its key.
        head: The head of its column.
        title: What the head says when it is pointed at.
        lower: Whether lower is better: the 95 % Hausdorff distance, which is no share.
    """

    split: str
    metric: str
    head: str
    title: str
    lower: bool = False

    def text(self, value: float | None) -> str:
        """A value as the tables print it."""
        return distance(value) if self.lower else score(value)

    def spread(self, sd: float | None) -> str:
        """A standard deviation as the tables print it; empty where there is none."""
        return "" if sd is None else f"± {self.text(sd)}"


def measures(summary: StudySummary) -> list[Measure]:
    """The scores of the ranked table; the one that ranks comes first."""
    if not summary.study.masks:
        ordered = sorted(SHOWN, key=lambda metric: metric != summary.metric)
        return [Measure("test", metric, capital(metric), f"Test {METRIC_NAMES[metric]}") for metric in ordered]
    unit = distance_unit(summary)
    found = [Measure("test", "dice", "Test Dice", "Mean over structures of the mean Dice over test cases")]
    title = f"95 % Hausdorff distance on test{f' in {unit}' if unit else ''}; lower is better"
    found.append(Measure("test", "hd95", with_unit("HD95", unit), title, lower=True))
    if any(label.test("dice_unmasked") for label in summary.labels):
        title = "Test Dice when what is predicted on ignored pixels counts as wrong"
        found.append(Measure("test", "dice_unmasked", "Unmasked Dice", title))
    return [*found, Measure("val", "dice", "Val Dice", "Dice on validation, of the weights that were chosen there")]


def run_measures(summary: StudySummary) -> list[Measure]:
    """The scores of the table of all runs."""
    if summary.study.masks:
        found = measures(summary)
        return [found[-1], *found[:-1]]
    name, others = summary.metric_name, SHOWN[1:]
    both = (("val", "Validation"), ("test", "Test"))
    first = [Measure(split, summary.metric, f"{word} {name}", "") for split, word in both]
    return first + [Measure("test", metric, capital(metric), "") for metric in others]


def capital(metric: str) -> str:
    """A metric's name as the head of a column."""
    return METRIC_NAMES[metric][:1].upper() + METRIC_NAMES[metric][1:]


def with_unit(head: str, unit: str) -> str:
    """``HD95, mm``; the head alone where the unit is unknown."""
    return f"{head}, {unit}" if unit else head


def run_unit(run: RunRecord) -> str:
    """The unit of a run's distances; empty where it says none."""
    return str((run.summary.get("test") or {}).get("hd95_unit") or "")


def distance_unit(summary: StudySummary) -> str:
    """The unit of the runs' distances, ``mm`` or ``pixels``; empty where they say none, or not the same."""
    units = {unit for run in summary.study.finished if (unit := run_unit(run))}
    return units.pop() if len(units) == 1 else ""
