"""Puts the report together: one HTML file with everything in it, from run folders alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mixlab.errors import Quoted, UserError, expected
from mixlab.studies.published import load
from mixlab.studies.report import details
from mixlab.studies.report.class_figures import class_figures
from mixlab.studies.report.collect import RunRecord, StudyRecord, by_data, read_study
from mixlab.studies.report.examples import collect_examples
from mixlab.studies.report.figures import score_figures, styles_of
from mixlab.studies.report.markdown import tables
from mixlab.studies.report.published import Beside, beside, published_columns
from mixlab.studies.report.stand_ins import find_stand_ins, stand_in_columns, stand_ins_of
from mixlab.studies.report.style import probability, quantity, score
from mixlab.studies.report.summary import StudySummary, count
from mixlab.studies.report.table import columns, link, ranked_rows, write_ranking, write_results
from mixlab.studies.report.variants import variants
from mixlab.training.files import write_text

TEMPLATES = Path(__file__).parent / "templates"


def build_report(study_dir: Path | str) -> Path:
    """Write ``report.html``, ``results.csv``, ``ranking.csv`` and ``tables.md`` into a study folder, from its run
    folders alone.

    Works for unfinished studies and for ones in which every run failed; needs neither torch nor the data. Several data
    sets are ranked apart, in one page.

    Returns:
        The path of ``report.html``.

    Raises:
        UserError: no study folder, or it cannot be written to.
    """
    study = read_study(study_dir)
    parts = [StudySummary(part) for part in by_data(study)]
    try:
        published = load(study.folder)
    except UserError as error:
        published = None
        study.problems.append(str(error))
    besides = [None if published is None else beside(part, published) for part in parts]
    page = render(study, parts, besides)
    try:
        more = {} if published is None else published_columns(published, study.runs)
        write_results(study, {**more, **stand_in_columns(study.runs)})
        write_ranking(study.folder, parts)
        write_text(study.folder / "tables.md", tables(parts, besides))
        write_text(study.folder / "report.html", page)
    except OSError as error:
        hint = "a copy of the study in another folder"
        raise expected(
            "report", "a study folder that can be written", Quoted(f"{study.folder} ({error})"), hint
        ) from error
    return study.folder / "report.html"


def render(study: StudyRecord, summaries: Sequence[StudySummary], besides: Sequence[Beside | None]) -> str:
    """The report of a study as HTML, with a summary for each of its data sets, beside published numbers if given."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = _environment()
    keys = [f"d{i}-" if len(summaries) > 1 else "" for i in range(len(summaries))]
    parts = [_part(*each) for each in zip(summaries, keys, besides, strict=True)]
    template = environment.get_template("results.html.j2")
    for part in parts:
        part["html"] = Markup(template.render(part))
    drawn = any(part["figures"] for part in parts)
    return environment.get_template("report.html.j2").render(
        _whole(study, summaries), parts=parts, plotly=Markup(get_plotlyjs()) if drawn else ""
    )


def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(link=link, score=score, quantity=quantity, probability=probability)
    environment.globals.update(count=count, run_number=run_number, stand_ins_of=stand_ins_of)
    environment.filters["breakable"] = breakable
    return environment


def _part(summary: StudySummary, key: str, published: Beside | None) -> dict[str, Any]:
    """What the page shows of one data set; ``key`` goes before its ids."""
    study = summary.study
    splits, counts = details.class_counts(study)
    figures = score_figures(summary) + class_figures(summary)
    return {
        "key": key,
        "summary": summary,
        "study": study,
        "ranking": summary.ranking,
        "styles": styles_of(summary),
        "columns": columns(summary),
        "rows": ranked_rows(summary, key),
        "beside": published,
        "variants": variants(summary),
        "stand_ins": find_stand_ins(study.runs),
        "figures": {figure["id"]: figure | {"id": key + figure["id"]} for figure in figures},
        "examples": collect_examples(summary),
        "data": study.runs[0].data if study.runs else "",
        "card": details.card_facts(study.card),
        "card_notes": details.card_notes(study.card),
        "splits": splits,
        "class_counts": counts,
    }


def _whole(study: StudyRecord, summaries: Sequence[StudySummary]) -> dict[str, Any]:
    """What the page shows of the study as a whole."""
    return {
        "study": study,
        "whole": StudySummary(study),
        "stand_ins": find_stand_ins(study.runs),
        "questions": details.questions(study),
        "configuration": details.configurations(study),
        "environment": details.environments(study),
        "study_text": details.study_text(study),
        "unfinished": details.unfinished(study),
        "events": details.events(study),
        "remarks": details.remarks(study, summaries),
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def breakable(label: str) -> Any:
    """A label that may break after an underscore, where it is too long for its column."""
    from markupsafe import Markup, escape

    return Markup(str(escape(label)).replace("_", "_<wbr>"))


def run_number(run: RunRecord) -> str:
    """What tells a run from others of its label: its seed, or its fold, or both."""
    if run.fold is None:
        return str(run.seed)
    return f"{run.seed}.{run.fold}"
