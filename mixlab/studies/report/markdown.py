"""The report's tables as Markdown, to paste into a paper, a wiki or a repository."""

from __future__ import annotations

from collections.abc import Sequence

from mixlab.studies.report.mask_cases import label_cases
from mixlab.studies.report.measures import Measure, measures
from mixlab.studies.report.published import Beside
from mixlab.studies.report.stand_ins import find_stand_ins
from mixlab.studies.report.structures import RULE, StructureTable, structure_table
from mixlab.studies.report.style import quantity
from mixlab.studies.report.summary import METRIC_NAMES, Average, StudySummary
from mixlab.studies.report.table import Cell, score_cell
from mixlab.studies.report.variants import Gain, Variants, variants


def tables(summaries: Sequence[StudySummary], besides: Sequence[Beside | None]) -> str:
    """The ranked table of each data set, what variants change, and published numbers.

    Args:
        summaries: a summary a data set.
        besides: published numbers a data set, or None.
    """
    return "\n".join(_part(summary, beside) for summary, beside in zip(summaries, besides, strict=True))


def _part(summary: StudySummary, beside: Beside | None) -> str:
    name = summary.study.runs[0].data if summary.study.runs else "no runs"
    lines = [f"### {name}", ""]
    if stand_ins := find_stand_ins(summary.study.runs):
        lines += [f"**{stand_ins.headline()}**", ""]
    lines += [" ".join([summary.headline(), *summary.basis()]), ""]
    lines += _ranked(summary)
    if summary.study.masks and (table := structure_table(summary, label_cases(summary))):
        lines += ["", *_structures(table)]
    if found := variants(summary):
        lines += ["", *_variants(summary, found)]
    if beside is not None and beside.rows:
        lines += ["", *_published(beside)]
    return "\n".join(lines) + "\n"


def _ranked(summary: StudySummary) -> list[str]:
    shown, scores = _measures(summary), []
    for label in summary.labels:
        cells = [_cell(measure, label.score(measure.split, measure.metric)) for measure in shown]
        cells.insert(1, label.rank.group if label.rank else "")
        scores.append([label.label, *cells, quantity(label.cost("parameters")), quantity(label.cost("macs"))])
    first, *others = [measure.head for measure in shown]
    return _table(["mixer", first, "", *others, "parameters", "MACs"], scores)


def _measures(summary: StudySummary) -> list[Measure]:
    """The scores of the table; the one that ranks comes first."""
    first = Measure("test", summary.metric, f"test {summary.metric_name}", "")
    if summary.study.masks:
        return [first, *(m for m in measures(summary) if (m.split, m.metric) != ("test", summary.metric))]
    return [first, *(Measure("test", metric, METRIC_NAMES[metric], "") for metric in ("balanced_accuracy", "auroc"))]


def _structures(table: StructureTable) -> list[str]:
    """Each measure of a structure with a table of its own: a row a mixer, a column a structure."""
    lines = [RULE]
    for place, group in enumerate(table.groups):
        rows = [[label.label, *(_written(cell) for cell in cells[place])] for label, cells in table.rows]
        lines += ["", f"{group}:", "", *_table(["mixer", *table.names], rows)]
    return lines


def _written(cell: Cell) -> str:
    return f"{cell.text} {cell.spread}".strip()


def _variants(summary: StudySummary, found: Variants) -> list[str]:
    reference = found.names[0]
    text = (
        f"Test {summary.metric_name} by variant, and the gain over `{reference}`; in bold: distinguishable from none."
    )
    rows = [[mixer, *(_gain(cell) for cell in cells)] for mixer, cells in found.rows]
    return [text, "", *_table(["mixer", *found.names], rows)]


def _gain(cell: Gain | None) -> str:
    if cell is None:
        return ""
    if not cell.gain.text:
        return cell.score.text
    return f"{cell.score.text} ({f'**{cell.gain.text}**' if cell.sure else cell.gain.text})"


def _published(beside: Beside) -> list[str]:
    head = [f"{name} {who}" for name in beside.heads for who in ("ours", "published")]
    rows = [
        [
            row.label.label,
            *(cell.text for triple in row.scores for cell in (triple.ours, triple.published)),
        ]
        for row in beside.rows
    ]
    said = [f"{d.field} {', '.join(value for value, _ in d.ours)} (published {d.published})" for d in beside.deviations]
    said += [f"other data than {name}" for name in beside.other_data] + beside.published.notes
    lines = [f"Beside the published numbers ({beside.published.source or beside.published.table}):", ""]
    lines += _table(["mixer", *head], rows)
    return lines + (["", f"What differs: {'; '.join(said)}."] if said else [])


def _cell(measure: Measure, average: Average | None) -> str:
    return _written(score_cell(measure, average))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table; bars inside cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]
