"""What a study's variants change: each mixer under each of them, and what it gains over the first."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mixlab.studies.ranking import Pair
from mixlab.studies.report.style import NOTHING, score
from mixlab.studies.report.summary import LabelSummary, StudySummary
from mixlab.studies.report.table import Cell


@dataclass(frozen=True)
class Gain:
    """A mixer under a variant.

    Args:
        score: Mean and spread over runs.
        gain: Its score minus that under the first variant, on the same seeds and test cases; empty where there is none.
        sure: The gain is distinguishable from none, by the intervals over all pairs of the ranking.
    """

    score: Cell
    gain: Cell
    sure: bool = False


@dataclass(frozen=True)
class Variants:
    """What the section shows: names of the variants, the first being the reference, and a row a mixer."""

    names: list[str]
    rows: list[tuple[str, list[Gain | None]]]


def variants(summary: StudySummary) -> Variants | None:
    """The labels of a data set by mixer and variant; None where no mixer has more than one."""
    config = summary.study.config
    found: dict[str, dict[str, LabelSummary]] = {}
    for label in sorted(summary.labels, key=lambda one: _place(one.label, config.get("labels"))):
        variant = str(label.every[0].config.get("variant") or "")
        if variant:
            found.setdefault(without_variant(label.label, variant), {})[variant] = label
    if all(len(arms) < 2 for arms in found.values()):
        return None
    there = dict.fromkeys(name for arms in found.values() for name in arms)
    names = sorted(there, key=lambda name: _place(name, list(config.get("variants") or [])))
    rows = [
        (base, [_gain(summary, arms.get(name), arms.get(names[0])) for name in names]) for base, arms in found.items()
    ]
    return Variants(names, rows)


def _place(name: str, order: object) -> int:
    """Where the study file has it; names that it does not know come last, as they are."""
    known = order if isinstance(order, list) else []
    return known.index(name) if name in known else len(known)


def without_variant(label: str, variant: str) -> str:
    """``conv-k3-warm-digits`` of the variant ``warm`` is ``conv-k3-digits``."""
    return re.sub(rf"-{re.escape(variant)}(?=-|$)", "", label, count=1)


def _gain(summary: StudySummary, label: LabelSummary | None, reference: LabelSummary | None) -> Gain | None:
    """The cell of a label; None where the study has no such arm."""
    if label is None:
        return None
    own = label.test(summary.metric)
    nothing = Cell(NOTHING, None)
    if own is None:
        return Gain(nothing, Cell("", None))
    shown = Cell(score(own.mean), own.mean, spread="" if own.sd is None else f"± {own.sd:.3f}")
    pair = None if reference is None or reference is label else _pair(summary, label.label, reference.label)
    if pair is None or not pair.n:
        return Gain(shown, Cell("", None))
    sign = 1 if pair.a == label.label else -1
    low, high = sorted((sign * pair.low, sign * pair.high))
    title = f"{low:+.3f} to {high:+.3f}" + ("" if pair.distinguishable else ", not distinguishable from no gain")
    return Gain(
        shown, Cell(f"{sign * pair.difference:+.3f}", sign * pair.difference, title=title), pair.distinguishable
    )


def _pair(summary: StudySummary, a: str, b: str) -> Pair | None:
    try:
        return summary.ranking.pair(a, b)
    except KeyError:
        return None
