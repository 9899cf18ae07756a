"""The section that sets a data set's runs beside published numbers, and says how they differ from the publication's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mixlab.errors import UserError
from mixlab.studies.published_table import Published, Row, lookup, same
from mixlab.studies.report.collect import RunRecord
from mixlab.studies.report.details import show
from mixlab.studies.report.stand_ins import stand_ins_of
from mixlab.studies.report.style import NOTHING, score
from mixlab.studies.report.summary import METRIC_NAMES, LabelSummary, StudySummary, average, count
from mixlab.studies.report.table import Cell


@dataclass(frozen=True)
class Triple:
    """A score: ours, the published one, and ours minus it."""

    ours: Cell
    published: Cell
    difference: Cell


@dataclass(frozen=True)
class BesideRow:
    """A label that has a published row.

    Args:
        label: The label.
        runs: Its finished runs, which are counted.
        states: What became of its other runs; empty if all are finished.
        scores: One for each score of the table.
        remarks: What the table says of its row.
        other_data: The table's data set, where it is another one.
    """

    label: LabelSummary
    runs: list[RunRecord]
    states: str
    scores: list[Triple]
    remarks: list[str]
    other_data: str | None


@dataclass(frozen=True)
class Deviation:
    """A field of the configuration that is not as published; our values with the labels that have them, if not all."""

    field: str
    ours: list[tuple[str, list[str]]]
    published: str


@dataclass(frozen=True)
class Beside:
    """What the section shows.

    Args:
        published: The table.
        heads: Names of the scores.
        rows: Labels with a published row.
        without: Labels without one.
        stand_ins: Labels that are never set beside published numbers.
        problems: Labels that cannot be placed, with the reason.
        other_data: The table's data sets that ours are set beside instead of their own.
        deviations: Fields that differ from the publication's protocol.
    """

    published: Published
    heads: list[str]
    rows: list[BesideRow]
    without: list[str]
    stand_ins: list[str]
    problems: list[str]
    other_data: list[str]
    deviations: list[Deviation]


def beside(summary: StudySummary, published: Published) -> Beside:
    """Set the finished runs of one data set beside a table."""
    rows: list[BesideRow] = []
    without, stand_ins, problems = [], [], []
    for label in summary.labels:
        real = [run for run in label.every if not stand_ins_of(run)]
        if not real:
            stand_ins.append(label.label)
            continue
        try:
            row = published.match(published.facts(real[0].config))
        except UserError as error:
            problems.append(f"{label.label} cannot be placed: {error}")
            continue
        if row is None:
            without.append(label.label)
        else:
            rows.append(_row(label, real, row, published))
    other = list(dict.fromkeys(row.other_data for row in rows if row.other_data is not None))
    heads = [METRIC_NAMES[m][:1].upper() + METRIC_NAMES[m][1:] for m in published.scores.values()]
    return Beside(published, heads, rows, without, stand_ins, problems, other, _deviations(rows, published))


def _row(label: LabelSummary, real: list[RunRecord], row: Row, published: Published) -> BesideRow:
    runs = [run for run in real if run.finished]
    scores = [_triple(runs, metric, row.score(column)) for column, metric in published.scores.items()]
    other = published.instead_of(published.facts(real[0].config))
    return BesideRow(label, runs, _states(label, real), scores, published.remarks(row), other)


def _states(label: LabelSummary, real: list[RunRecord]) -> str:
    """What became of the runs that do not count: ``1 of 3 runs diverged``."""
    states = [run.state if run.state != "finished" else "without results" for run in real if not run.finished]
    states += ["with stand-ins"] * (len(label.every) - len(real))
    total = count(len(label.every), "run")
    if len(label.every) == 1:
        return "".join(states)
    return ", ".join(f"{states.count(s)} of {total} {s}" for s in dict.fromkeys(states))


def _triple(runs: Sequence[RunRecord], metric: str, theirs: float | None) -> Triple:
    own = average([run.score("test", metric) for run in runs])
    published = Cell(score(theirs), theirs, title="" if theirs is None else f"published {theirs:g}")
    if own is None:
        return Triple(Cell(NOTHING, None), published, Cell(NOTHING, None))
    spread = "" if own.sd is None else f"± {own.sd:.3f}"
    ours = Cell(score(own.mean), own.mean, title=f"{own.mean:.5f}, mean of {count(len(runs), 'run')}", spread=spread)
    if theirs is None:
        return Triple(ours, published, Cell(NOTHING, None))
    difference = own.mean - theirs
    return Triple(ours, published, Cell(f"{difference:+.3f}", difference, title=f"{difference:+.5f}"))


def _deviations(rows: Sequence[BesideRow], published: Published) -> list[Deviation]:
    """Fields of the protocol in which runs that are set beside the table differ from it."""
    found = []
    for field, theirs in published.protocol.items():
        ours: dict[str, list[str]] = {}
        differs = False
        for row in rows:
            for run in row.runs or row.label.every:
                there, value = lookup(run.config, field)
                differs = differs or not there or not same(value, theirs)
                labels = ours.setdefault(show(value) if there else "not recorded", [])
                labels += [] if row.label.label in labels else [row.label.label]
        if differs:
            values = [(value, labels if len(ours) > 1 else []) for value, labels in ours.items()]
            found.append(Deviation(field, values, show(theirs)))
    return found


def published_columns(published: Published, runs: Sequence[RunRecord]) -> dict[str, list[object]]:
    """Columns ``published_<metric>`` for ``results.csv``, a value for each run; none where no run has a published row.

    Runs that are not finished, and those with stand-ins, have empty cells. ``published_data`` names the table's data
    set where it is another one.
    """
    matched = [_matched(published, run) if run.finished and not stand_ins_of(run) else None for run in runs]
    columns: dict[str, list[object]] = {
        f"published_{metric}": [None if row is None else row.score(column) for row in matched]
        for column, metric in published.scores.items()
    }
    columns["published_data"] = [
        None if row is None else published.instead_of(published.facts(run.config))
        for run, row in zip(runs, matched, strict=True)
    ]
    return {name: values for name, values in columns.items() if any(value is not None for value in values)}


def _matched(published: Published, run: RunRecord) -> Row | None:
    try:
        return published.match(published.facts(run.config))
    except UserError:  # the page says so
        return None
