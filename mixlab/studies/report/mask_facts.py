"""What the data card of masks says, in words: pixels and shares of each class, spacing, what counts for nothing."""

from __future__ import annotations

import math
from typing import Any

from mixlab.studies.report.collect import Json, StudyRecord, number
from mixlab.studies.report.details import class_counts, show

Rows = list[tuple[str, list[str]]]


def readable(card: Json) -> Json:
    """A card whose fields of masks are written for readers; other fields are as they were."""
    changed: Json = {}
    if "image_size" in card:
        changed["image_size"] = card["image_size"] or "varies"
    if "background" in card:
        names, place = card.get("classes") or [], card["background"]
        known = isinstance(place, int) and place < len(names)
        changed["background"] = f"{names[place]} (class {place})" if known else "none: every class is a structure"
    if "overlapping" in card:
        changed["overlapping"] = "yes" if card["overlapping"] else "no: one class a pixel"
    if "spacing" in card:
        spacing = card["spacing"]
        changed["spacing"] = f"{show(spacing)} mm" if spacing else "unknown, or not the same in all cases"
    if "ignored_pixels" in card and isinstance(card["ignored_pixels"], dict):
        changed["ignored_pixels"] = {split: _written(value) for split, value in card["ignored_pixels"].items()}
    return {**card, **changed}


def shares_of(card: Json) -> str:
    """What the shares of the classes are shares of; empty where the card does not say how many pixels there are."""
    if not card.get("overlapping"):
        return "the pixels that count"
    return "all pixels" if any(_pixels(card, split) for split in card.get("class_counts") or {}) else ""


def pixel_counts(study: StudyRecord) -> tuple[list[str], Rows]:
    """Splits, and for each class its pixels in each, with their share where it is known."""
    splits, rows = class_counts(study)
    totals = [_total(study.card, split, [row[place] for _, row in rows]) for place, split in enumerate(splits)]
    return splits, [(name, [_shared(v, total) for v, total in zip(row, totals, strict=True)]) for name, row in rows]


def _total(card: Json, split: str, counts: list[str]) -> float | None:
    if card.get("overlapping"):
        return _pixels(card, split)
    return float(sum(int(value) for value in counts if value.isdigit()))


def _pixels(card: Json, split: str) -> float | None:
    """All pixels of a split, where its images are of one size."""
    size, cases = card.get("image_size"), number((card.get("sizes") or {}).get(split))
    return None if not size or cases is None else cases * math.prod(size)


def _shared(value: str, total: float | None) -> str:
    if not value.isdigit():
        return value
    share = f" ({100 * int(value) / total:.3g} %)" if total else ""
    return f"{int(value):,}{share}"


def _written(value: Any) -> Any:
    return f"{value:,}" if isinstance(value, int) else value
