"""Puts the report together: one HTML file with everything in it, from run folders alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mixlab.errors import Quoted, UserError, expected
from mixlab.studies.published import load
from mixlab.studies.report import details, mask_facts
from mixlab.studies.report.class_figures import class_figures
from mixlab.studies.report.collect import RunRecord, StudyRecord, by_data, read_study
from mixlab.studies.report.csv_files import write_ranking, write_results
from mixlab.studies.report.examples import collect_examples
from mixlab.studies.report.failures import LOW, failures
from mixlab.studies.report.figures import score_figures, styles_of
from mixlab.studies.report.markdown import tables
from mixlab.studies.report.mask_cases import LabelCases, label_cases
from mixlab.studies.report.mask_figures import FAR, mask_figures
from mixlab.studies.report.mask_gallery import collect_cases
from mixlab.studies.report.measures import Measure, distance_unit, run_measures, with_unit
from mixlab.studies.report.published import Beside, beside, published_columns
from mixlab.studies.report.stand_ins import find_stand_ins, stand_in_columns, stand_ins_of
from mixlab.studies.report.structures import RULE, structure_table
from mixlab.studies.report.style import distance, probability, quantity, score
from mixlab.studies.report.summary import StudySummary, count
from mixlab.studies.report.table import columns, link, ranked_rows
from mixlab.studies.report.variants import variants
from mixlab.training.files import write_text

TEMPLATES = Path(__file__).parent / "templates"
_FIRST = ("ranking", "variants", "published", "differences", "cost", "learning")
#: The sections of a data set in their order: of classes, and of masks.
SECTIONS = {
    False: (*_FIRST, "classes", "examples", "data"),
    True: (*_FIRST, "structures", "cases", "extremes", "failures", "data"),
}
#: Sections that only some studies have, and what they show.
OPTIONAL = {"variants": "variants", "published": "beside"}


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
    script = Markup(get_plotlyjs()) if drawn else ""
    whole = {**_whole(study, summaries), "parts": parts, "run_tables": _run_tables(parts)}
    return environment.get_template("report.html.j2").render(whole, plotly=script)


def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(link=link, score=score, quantity=quantity, probability=probability, distance=distance)
    environment.globals.update(count=count, run_number=run_number, stand_ins_of=stand_ins_of)
    environment.filters["breakable"] = breakable
    return environment


def _part(summary: StudySummary, key: str, published: Beside | None) -> dict[str, Any]:
    """What the page shows of one data set; ``key`` goes before its ids."""
    study = summary.study
    masks = study.masks
    splits, counts = mask_facts.pixel_counts(study) if masks else details.class_counts(study)
    cases = label_cases(summary) if masks else []
    figures = score_figures(summary) + (mask_figures(summary, cases) if masks else class_figures(summary))
    more = _of_masks(summary, cases, key) if masks else {"examples": collect_examples(summary)}
    compared = {"variants": variants(summary), "beside": published}
    return {
        "key": key,
        "summary": summary,
        "study": study,
        "ranking": summary.ranking,
        "styles": styles_of(summary),
        "columns": columns(summary),
        "rows": ranked_rows(summary, key),
        "masks": masks,
        "sections": [name for name in SECTIONS[masks] if compared.get(OPTIONAL.get(name, ""), True)],
        "stand_ins": find_stand_ins(study.runs),
        "figures": {figure["id"]: figure | {"id": key + figure["id"]} for figure in figures},
        "data": study.runs[0].data if study.runs else "",
        "card": details.card_facts(mask_facts.readable(study.card) if masks else study.card),
        "card_notes": details.card_notes(study.card),
        "splits": splits,
        "class_counts": counts,
        **compared,
        **more,
    }


def _of_masks(summary: StudySummary, cases: Sequence[LabelCases], key: str) -> dict[str, Any]:
    """What the page shows of masks in the place of classes and example images."""
    return {
        "rule": RULE,
        "structures": structure_table(summary, cases),
        "far": FAR,
        "gallery": collect_cases(summary, cases, key),
        "volumes": summary.study.card.get("spatial_dims") == 3,
        "failures": failures(summary, cases),
        "low": LOW,
        "distance_head": with_unit("HD95", distance_unit(summary)),
        "shares": mask_facts.shares_of(summary.study.card),
    }


def _run_tables(parts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tables of all runs: data sets with the same scores in one."""
    tables: dict[tuple[Measure, ...], dict[str, Any]] = {}
    for part in parts:
        shown = tuple(run_measures(part["summary"]))
        table = tables.setdefault(shown, {"measures": shown, "data": [], "rows": []})
        table["data"].append(part["data"])
        table["rows"] += part["rows"]
    return list(tables.values())


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
