"""Test cases with truth and predictions over them: cases spread over the split, and each label's worst and best.

The picture under a mask is stored once in the page, however many masks lie over it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mixlab.studies.report.arrays import MaskExample
from mixlab.studies.report.collect import RunRecord
from mixlab.studies.report.mask_cases import LabelCases
from mixlab.studies.report.overlays import Bytes, colour_of, ignored, image_uri, overlay, pattern_of, planes
from mixlab.studies.report.style import score
from mixlab.studies.report.summary import LabelSummary, StudySummary, count, join

#: Cases of the spread that are shown, and labels beside image and truth.
SPREAD, COLUMNS = 12, 6
#: Worst and best cases of a label; fewer where there are more labels than :data:`MANY`.
WORST_BEST, FEWER, MANY = (6, 3), (4, 2), 12
#: Images smaller than this are enlarged without blurring.
SMALL = 100
#: A case, and the run whose example of it is shown.
Kept = dict[str, tuple[RunRecord, MaskExample]]


@dataclass(frozen=True)
class Picture:
    """A picture that masks lie over: ``data:`` URI, size in pixels, and whether it is too small to be smoothed."""

    uri: str
    width: int
    height: int
    small: bool


@dataclass(frozen=True)
class Panel:
    """One picture of a case.

    Args:
        head: What it shows: image, truth, or a label.
        picture: The class of the picture under it.
        overlay: ``data:`` URI of what lies over the picture; empty for the picture alone.
        alt: What it shows, for those who do not see it.
        note: What is written under it.
        title: What it says when it is pointed at.
    """

    head: str
    picture: str
    overlay: str
    alt: str
    note: str = ""
    title: str = ""


@dataclass(frozen=True)
class Case:
    """A test case with its pictures."""

    case: str
    panels: list[Panel]


@dataclass(frozen=True)
class Extremes:
    """The worst and best cases of a label, among those that its runs kept."""

    label: str
    worst: list[Case]
    best: list[Case]


@dataclass(frozen=True)
class Legend:
    """How a structure is drawn."""

    name: str
    colour: str
    pattern: str


@dataclass
class Gallery:
    """All that the sections of cases show.

    Args:
        legend: The structures.
        veiled: Whether any case has pixels that count for nothing.
        spread: Cases by their place in the split.
        columns: In words, which labels are shown beside them; empty where all are.
        extremes: Worst and best cases of each label.
        pictures: The pictures under the masks by their class.
    """

    legend: list[Legend] = field(default_factory=list)
    veiled: bool = False
    spread: list[Case] = field(default_factory=list)
    columns: str = ""
    extremes: list[Extremes] = field(default_factory=list)
    pictures: dict[str, Picture] = field(default_factory=dict)

    @property
    def widest(self) -> int:
        """The most pictures beside each other of a case of the spread."""
        return max((len(case.panels) for case in self.spread), default=1)


class _Painter:
    """Makes the panels of one study and remembers its pictures."""

    def __init__(self, summary: StudySummary, gallery: Gallery, key: str) -> None:
        self.structures = len(summary.study.structures)
        background = summary.study.card.get("background")
        self.background = background if isinstance(background, int) else None
        self.gallery, self.key = gallery, key
        self.names: dict[bytes, str] = {}

    def picture(self, image: Bytes) -> str:
        """The class of an image, which is stored when it is first seen."""
        digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()
        if digest not in self.names:
            name = self.names[digest] = f"pic-{self.key}{len(self.names)}"
            height, width = image.shape[:2]
            self.gallery.pictures[name] = Picture(image_uri(image), width, height, max(height, width) < SMALL)
        return self.names[digest]

    def plain(self, example: MaskExample) -> Panel:
        """The image alone."""
        return Panel("image", self.picture(example.image), "", f"image of {example.case}")

    def truth(self, example: MaskExample) -> Panel:
        """The truth, filled and with its contour."""
        return self._panel("truth", example, example.truth, f"truth of {example.case}")

    def said(self, label: LabelCases, run: RunRecord, example: MaskExample, head: str) -> Panel:
        """A prediction, filled, under the contour of the truth."""
        mean = label.overall_dice.get(example.case)
        runs, title = label.runs_with(example.case), f"{label.label.label}, {_who(run)}"
        title += f"; Dice is the mean over {count(runs, 'run')}" if runs > 1 else ""
        alt = f"{label.label.label} on {example.case}, Dice {score(mean)}"
        return self._panel(head, example, example.said, alt, f"Dice {score(mean)}", title)

    def _panel(self, head: str, example: MaskExample, shown: Bytes, alt: str, note: str = "", title: str = "") -> Panel:
        truth = planes(example.truth, self.structures, self.background)
        veil = ignored(example.truth)
        self.gallery.veiled = self.gallery.veiled or bool(veil.any())
        over = overlay(planes(shown, self.structures, self.background), truth, veil)
        return Panel(head, self.picture(example.image), over, alt, note, title)


def collect_cases(summary: StudySummary, cases: Sequence[LabelCases], key: str = "") -> Gallery:
    """The pictures of a study.

    Args:
        summary: The study, or its part on one data set.
        cases: Its labels' scores case by case, in the order of the ranking.
        key: Goes before the classes of the pictures, where the page shows several data sets.
    """
    gallery = Gallery([Legend(name, colour_of(k), pattern_of(k)) for k, name in enumerate(summary.study.structures)])
    painter = _Painter(summary, gallery, key)
    chosen, gallery.columns = chosen_labels(cases)
    spread: dict[str, list[Panel]] = {}
    worst, best = WORST_BEST if len(cases) <= MANY else FEWER
    for label in cases:
        of_spread, every = _kept(label.label)
        if label in chosen:
            _add_spread(spread, painter, label, of_spread)
        gallery.extremes += _extremes(painter, label, every, worst, best)
    places = np.linspace(0, len(spread) - 1, min(SPREAD, len(spread))).round().astype(int)
    gallery.spread = [Case(list(spread)[n], list(spread.values())[n]) for n in places]
    return gallery


def chosen_labels(cases: Sequence[LabelCases], most: int = COLUMNS) -> tuple[list[LabelCases], str]:
    """The labels that are shown beside each other, best first, and which they are in words if not all.

    With too many labels: the best three, the last, up to two baselines, and the next best.
    """
    if len(cases) <= most:
        return list(cases), ""
    baselines = [label for label in cases[3:-1] if _is_baseline(label.label)][:2]
    others = [label for label in cases[3:-1] if label not in baselines]
    filled = others[: max(0, most - 4 - len(baselines))]
    chosen = [label for label in cases if label in (*cases[:3], *baselines, *filled, cases[-1])]
    words = ["the best three", *(["the next best"] if filled else []), "the last"]
    words += [f"the best of the baselines ({join([label.label.label for label in baselines])})"] if baselines else []
    return chosen, f"Of {len(cases)} mixers {len(chosen)} are shown: {join(words)}."


def _is_baseline(label: LabelSummary) -> bool:
    """A model of its own, without an exchanged mixer, or one that mixes nothing."""
    model = (label.runs or label.every)[0].config.get("model")
    return label.mixer == "identity" or not (isinstance(model, dict) and model.get("token_mixer"))


def _kept(label: LabelSummary) -> tuple[Kept, Kept]:
    """The cases that a label's runs kept, each from the first run that did: those of the spread, and all."""
    spread: Kept = {}
    every: Kept = {}
    for run in label.runs:
        for example in run.mask_examples():
            every.setdefault(example.case, (run, example))
            if example.kept == "spread":
                spread.setdefault(example.case, (run, example))
    return spread, every


def _add_spread(
    spread: dict[str, list[Panel]],
    painter: _Painter,
    label: LabelCases,
    kept: Kept,
) -> None:
    """Add a label's predictions to the cases of the spread; the first label also brings image and truth."""
    for case, (run, example) in kept.items():
        panels = spread.setdefault(case, [])
        if not panels:
            panels += [painter.plain(example), painter.truth(example)]
        panels.append(painter.said(label, run, example, label.label.label))


def _extremes(painter: _Painter, label: LabelCases, kept: Kept, worst: int, best: int) -> list[Extremes]:
    order = sorted((dice, case) for case, dice in label.overall_dice.items() if case in kept)
    top = min(best, len(order) // 3)
    bottom = min(worst, len(order) - top)
    if not order:
        return []
    made = {}
    for _, case in [*order[:bottom], *order[len(order) - top :]]:
        run, example = kept[case]
        made[case] = Case(case, [painter.plain(example), painter.said(label, run, example, "prediction")])
    ends = [made[case] for _, case in order[:bottom]], [made[case] for _, case in order[len(order) - top :][::-1]]
    return [Extremes(label.label.label, *ends)]


def _who(run: RunRecord) -> str:
    return f"seed {run.seed}" + ("" if run.fold is None else f", fold {run.fold}")
