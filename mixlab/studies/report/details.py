"""The report's back matter: data card, what the runs' configurations share and where they differ, and every event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from mixlab.studies.backends import choices_text
from mixlab.studies.report.collect import Json, RunRecord, StudyRecord
from mixlab.studies.report.mask_remarks import mask_remarks
from mixlab.studies.report.summary import StudySummary

#: The facts of a data card in reading order; others follow.
FACTS = (
    *("name", "task", "channels", "spatial_dims", "image_size", "sizes", "splits", "mean", "std", "flips"),
    *("source", "licence", "citation", "fingerprint"),
)


@dataclass(frozen=True)
class Shared:
    """Fields that all runs have in common, and those that differ with one value a run."""

    common: list[tuple[str, str]]
    names: list[str]
    differing: list[tuple[RunRecord, list[str]]]


@dataclass(frozen=True)
class Event:
    """Something that was recorded, once or in several runs."""

    kind: str
    message: str
    runs: list[RunRecord]


def flatten(value: object, prefix: str = "") -> dict[str, str]:
    """A nested mapping as dotted keys with their values as text; lists stay whole."""
    if isinstance(value, dict) and value:
        flat: dict[str, str] = {}
        for key, inner in value.items():
            flat |= flatten(inner, f"{prefix}.{key}" if prefix else str(key))
        return flat
    return {prefix: show(value)} if prefix else {}


def show(value: object) -> str:
    """A value of a configuration as one line."""
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(show(v) for v in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{k}: {show(v)}" for k, v in value.items()) or "none"
    return str(value)


def shared(runs: Sequence[RunRecord], mappings: Sequence[Json], without: Sequence[str] = ()) -> Shared:
    """Divide the fields of the runs' mappings into common and differing ones."""
    flats = [flatten(mapping) for mapping in mappings]
    keys = [k for k in dict.fromkeys(key for flat in flats for key in flat) if k not in without]
    same = [key for key in keys if len({flat.get(key) for flat in flats}) == 1]
    names = [key for key in keys if key not in same]
    differing = [(run, [flat.get(n, "") for n in names]) for run, flat in zip(runs, flats, strict=True)]
    return Shared([(key, flats[0][key]) for key in same], names, differing if names else [])


def configurations(study: StudyRecord) -> Shared:
    """What was configured."""
    return shared(study.runs, [run.config for run in study.runs], without=("label", "hash"))


def environments(study: StudyRecord) -> Shared:
    """Where it ran, and which backends computed local attention there."""
    return shared(study.runs, [_environment(run.environment) for run in study.runs])


def _environment(environment: Json) -> Json:
    if "local_attention" not in environment:  # of an earlier version, or not trained to its end
        return environment
    return {**environment, "local_attention": choices_text(environment["local_attention"])}


def study_text(study: StudyRecord) -> str:
    """The study's own file as YAML."""
    return yaml.safe_dump(study.config, sort_keys=False, allow_unicode=True) if study.config else ""


def card_facts(card: Json) -> list[tuple[str, str]]:
    """The short facts of a data card, in reading order."""
    facts = [(key.replace("_", " "), show(_rounded(card[key]))) for key in FACTS if key in card]
    known = (*FACTS, "classes", "class_counts", "notes", "leaks")
    return facts + [(key.replace("_", " "), show(card[key])) for key in card if key not in known]


def _rounded(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    return round(value, 4) if isinstance(value, float) else value


def class_counts(study: StudyRecord) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Splits, and for each class how many cases it has in each; the card's counts may be lists or mappings."""
    counts = study.card.get("class_counts")
    if not isinstance(counts, dict) or not counts:
        return [], []
    rows = []
    for place, name in enumerate(study.classes):
        row = []
        for split in counts.values():
            if isinstance(split, dict):
                row.append(show(split.get(name, split.get(str(place), ""))))
            else:
                row.append(show(split[place]) if isinstance(split, list) and place < len(split) else "")
        rows.append((name, row))
    return [str(split) for split in counts], rows


def card_notes(card: Json) -> list[str]:
    """Notes and known leaks of the data."""
    return [show(note) for key in ("notes", "leaks") for note in card.get(key) or []]


def unfinished(study: StudyRecord) -> list[tuple[RunRecord, str]]:
    """Runs without results, with what is known of the reason."""
    return [(run, _reason(run)) for run in study.runs if not run.finished]


def _reason(run: RunRecord) -> str:
    parts = [str(run.status.get("message") or "")]
    diverged = run.status.get("diverged")
    if isinstance(diverged, dict):
        parts.append(", ".join(f"{key} {show(value)}" for key, value in diverged.items()))
    elif run.status.get("epoch") is not None:
        parts.append(f"epoch {run.status['epoch']} of {run.status.get('epochs', '?')}")
    if run.state == "finished":
        parts.append("no summary.json")
    return "; ".join(part for part in parts if part)


def events(study: StudyRecord) -> list[Event]:
    """Every recorded event, equal ones of several runs together."""
    found: dict[tuple[str, str], list[RunRecord]] = {}
    for run in study.runs:
        for event in run.events():
            found.setdefault((show(event.get("kind", "event")), show(event.get("message", ""))), []).append(run)
        for problem in run.problems:
            found.setdefault(("unreadable", problem), []).append(run)
    return [Event(kind, message, list(dict.fromkeys(runs))) for (kind, message), runs in found.items()]


def questions(study: StudyRecord) -> list[str]:
    """What the study asks, in its own words."""
    asked = study.config.get("questions")
    return [show(question) for question in asked] if isinstance(asked, list) else []


def remarks(study: StudyRecord, summaries: Sequence[StudySummary]) -> list[str]:
    """What the report itself has to say: limits of the rankings, duplicates, numbers that do not agree."""
    notes = [*study.problems, *map(show, study.config.get("notes") or [])]
    for summary in summaries:
        where = f"{summary.study.runs[0].data}: " if len(summaries) > 1 else ""
        notes += [where + note for note in summary.ranking.notes]
        notes += [text for run in summary.study.finished if (text := _disagreement(run, summary.metric))]
        notes += mask_remarks(summary) if summary.study.masks else []
    return notes + [f"{run.name}: not used, {why}" for run, why in study.unused]


def _disagreement(run: RunRecord, metric: str) -> str:
    """Whether the stored score and the one recomputed from the stored predictions differ."""
    from mixlab.studies.case_metrics import point_value

    predictions, stored = run.predictions("test"), run.score("test", metric)
    if predictions is None or stored is None:
        return ""
    again = point_value(predictions, metric)
    if abs(again - stored) < 2e-3:
        return ""
    return f"{run.name}: summary.json says {metric} {stored:.4f}, its predictions give {again:.4f}"
