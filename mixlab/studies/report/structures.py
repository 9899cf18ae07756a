"""The table of structures: Dice and Hausdorff distance of each label, and the cases that say nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mixlab.studies.report.mask_cases import Floats, LabelCases, span
from mixlab.studies.report.measures import Measure, distance_unit, with_unit
from mixlab.studies.report.summary import LabelSummary, StudySummary, average
from mixlab.studies.report.table import Cell, score_cell
from mixlab.training.mask_scores import mean, numbers

#: The rule of :mod:`mixlab.training.mask_scores`, in the page's words.
RULE = (
    "A case in which neither truth nor prediction has a structure is left out of that structure's means; a case in "
    "which only one of the two has it counts Dice 0 and, as distance, the diagonal of the field of view."
)


@dataclass(frozen=True)
class StructureTable:
    """A row a label, a group of columns a measure, in it a column a structure.

    Args:
        names: The structures.
        groups: Names of the measures: Dice, the distance with its unit where it was measured, cases left out.
        lower: For each measure, whether lower is better.
        rows: Labels with their cells, group by group.
    """

    names: list[str]
    groups: list[str]
    lower: list[bool]
    rows: list[tuple[LabelSummary, list[list[Cell]]]]


def structure_table(summary: StudySummary, cases: Sequence[LabelCases]) -> StructureTable | None:
    """The table of all labels with predictions; None where there are none. Numbers come from the predictions."""
    if not cases:
        return None
    measured = any(label.hd95 is not None for label in cases)
    dice = Measure("test", "dice", "Dice", "")
    hd95 = Measure("test", "hd95", with_unit("HD95", distance_unit(summary)), "", lower=True)
    shown = [dice, *([hd95] if measured else [])]
    rows = []
    for label in cases:
        groups = [_cells(dice, label.dice)]
        if measured:
            nothing = [Cell(hd95.text(None), None) for _ in summary.study.structures]
            groups.append(nothing if label.hd95 is None else _cells(hd95, label.hd95))
        rows.append((label.label, [*groups, _left_out(label)]))
    heads = [*(measure.head for measure in shown), "Cases left out"]
    return StructureTable(summary.study.structures, heads, [*(measure.lower for measure in shown), True], rows)


def structure_means(values: Floats) -> list[list[float | None]]:
    """Mean over cases of ``(R, N, K)``: for each structure a number a run."""
    return [numbers(column) for column in mean(values, 1).T]


def _cells(measure: Measure, values: Floats) -> list[Cell]:
    return [score_cell(measure, average(runs)) for runs in structure_means(values)]


def _left_out(label: LabelCases) -> list[Cell]:
    title = f"of {span(label.predicted)} test cases"
    return [Cell(span(column), float(column.mean()), title=title) for column in label.left_out.T]
