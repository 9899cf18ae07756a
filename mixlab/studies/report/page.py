"""Puts the report together: one HTML file with everything in it, from run folders alone."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mixlab.errors import Quoted, expected
from mixlab.studies.report import details
from mixlab.studies.report.class_figures import class_figures
from mixlab.studies.report.collect import RunRecord, read_study
from mixlab.studies.report.examples import collect_examples
from mixlab.studies.report.figures import score_figures, styles_of
from mixlab.studies.report.style import probability, quantity, score
from mixlab.studies.report.summary import StudySummary, count
from mixlab.studies.report.table import columns, link, ranked_rows, slug, write_ranking, write_results
from mixlab.training.files import write_text

TEMPLATES = Path(__file__).parent / "templates"


def build_report(study_dir: Path | str) -> Path:
    """Write ``report.html``, ``results.csv`` and ``ranking.csv`` into a study folder, from its run folders alone.

    Works for unfinished studies and for ones in which every run failed; needs neither torch nor the data.

    Returns:
        The path of ``report.html``.

    Raises:
        UserError: no study folder, or it cannot be written to.
    """
    summary = StudySummary(read_study(study_dir))
    page = render(summary)
    folder = summary.study.folder
    try:
        write_results(summary.study)
        write_ranking(summary)
        write_text(folder / "report.html", page)
    except OSError as error:
        hint = "a copy of the study in another folder"
        raise expected("report", "a study folder that can be written", Quoted(f"{folder} ({error})"), hint) from error
    return folder / "report.html"


def render(summary: StudySummary) -> str:
    """The report of a study as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(link=link, score=score, quantity=quantity, slug=slug, count=count, run_number=run_number)
    environment.globals.update(probability=probability)
    environment.filters["breakable"] = breakable
    figures = {figure["id"]: figure for figure in score_figures(summary) + class_figures(summary)}
    return environment.get_template("report.html.j2").render(
        _context(summary), figures=figures, plotly=Markup(get_plotlyjs()) if figures else ""
    )


def breakable(label: str) -> Any:
    """A label that may break after an underscore, where it is too long for its column."""
    from markupsafe import Markup, escape

    return Markup(str(escape(label)).replace("_", "_<wbr>"))


def run_number(run: RunRecord) -> str:
    """What tells a run from others of its label: its seed, or its fold, or both."""
    if run.fold is None:
        return str(run.seed)
    return f"{run.seed}.{run.fold}"


def _context(summary: StudySummary) -> dict[str, Any]:
    study = summary.study
    splits, counts = details.class_counts(study)
    return {
        "summary": summary,
        "study": study,
        "ranking": summary.ranking,
        "styles": styles_of(summary),
        "columns": columns(summary),
        "rows": ranked_rows(summary),
        "examples": collect_examples(summary),
        "card": details.card_facts(study.card),
        "card_notes": details.card_notes(study.card),
        "splits": splits,
        "class_counts": counts,
        "configuration": details.configurations(study),
        "environment": details.environments(study),
        "study_text": details.study_text(study),
        "unfinished": details.unfinished(study),
        "events": details.events(study),
        "remarks": details.remarks(summary),
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
