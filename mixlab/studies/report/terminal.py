"""The ranking as a table for the terminal, 80 columns wide, with the same sentences as the page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mixlab.studies.report.collect import by_data, read_study
from mixlab.studies.report.measures import Measure, distance_unit, with_unit
from mixlab.studies.report.stand_ins import find_stand_ins
from mixlab.studies.report.style import quantity, score
from mixlab.studies.report.summary import LabelSummary, StudySummary

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


#: Longer groups than this would leave no room for names.
FEW_LETTERS = 9


def print_ranking(study_dir: Path | str, console: Console | None = None) -> None:
    """Print the ranked table and the headline of a study, one for each of its data sets.

    Raises:
        UserError: no study folder.
    """
    from rich.console import Console
    from rich.text import Text

    console = console or Console()
    parts = by_data(read_study(study_dir))
    for part in parts:
        summary = StudySummary(part)
        if len(parts) > 1:
            console.print(Text(f"\n{part.runs[0].data}", style="bold underline"))
        if summary.labels:
            console.print(ranking_table(summary, console.width))
        if stand_ins := find_stand_ins(part.runs):
            console.print(Text(f"{stand_ins.headline()} {stand_ins.sentence()}", style="bold red"))
            if stand_ins.runs < stand_ins.total:
                console.print(Text(f"Labels with stand-ins: {', '.join(stand_ins.labels)}."))
        console.print(Text(summary.headline(), style="bold"))
        for sentence in summary.basis():
            console.print(Text(sentence))


def ranking_table(summary: StudySummary, width: int = 80) -> Table:
    """The ranked table; balanced accuracy (of masks the Hausdorff distance) has room from 96 columns on, and letters
    where they are few."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    chosen = summary.selection.label if summary.selection is not None else None
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), title_justify="left", caption_justify="left")
    letters = all(len(row.group) <= FEW_LETTERS for row in summary.ranking.rows)
    said = "same letter: not distinguishable" if letters else "groups of many letters: see the report"
    table.caption = Text(f"{said}; * chosen by validation")
    table.add_column("rank", no_wrap=True)
    table.add_column("mixer", overflow="fold")
    table.add_column(f"test {summary.metric_name}", no_wrap=True)
    if letters:
        table.add_column("", no_wrap=True)
    second = _second(summary)
    for head in (*([second.head] if width >= 96 else []), "params", "MACs", "s/epoch"):
        table.add_column(head, justify="right", no_wrap=True)
    for label in summary.labels:
        cells = _cells(label, summary.metric, label.label == chosen, second if width >= 96 else None, letters=letters)
        table.add_row(*map(Text, cells))
    return table


def _second(summary: StudySummary) -> Measure:
    """The score beside the one that ranks: balanced accuracy, of masks the Hausdorff distance."""
    if not summary.study.masks:
        return Measure("test", "balanced_accuracy", "bal. acc.", "")
    return Measure("test", "hd95", with_unit("HD95", distance_unit(summary)), "", lower=True)


def _cells(
    label: LabelSummary, metric: str, chosen: bool, second: Measure | None, *, letters: bool = True
) -> list[str]:
    average, seconds = label.test(metric), label.cost("seconds_per_epoch")
    mean = score(None) if average is None else score(average.mean)
    if average is not None and average.sd is not None:
        mean += f" ± {average.sd:.3f}"
    rank = "-"
    if label.rank is not None:
        rank = f"{label.rank.best_rank}-{label.rank.worst_rank}" if label.rank.tied else str(label.rank.best_rank)
    return [
        rank,
        label.label + (" *" if chosen else ""),
        mean,
        *([label.rank.group if label.rank is not None else ""] if letters else []),
        *([] if second is None else [_mean(label, second)]),
        quantity(label.cost("parameters")),
        quantity(label.cost("macs")),
        quantity(seconds),
    ]


def _mean(label: LabelSummary, measure: Measure) -> str:
    average = label.score(measure.split, measure.metric)
    return measure.text(None if average is None else average.mean)
