"""Box plots of structures: Dice and Hausdorff distance over the test cases of every label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixlab.studies.report.figures import styles_of
from mixlab.studies.report.mask_cases import Floats, LabelCases
from mixlab.studies.report.measures import distance_unit, with_unit
from mixlab.studies.report.style import Style, axis, category_axis, distance, figure, score, text, view
from mixlab.studies.report.summary import StudySummary
from mixlab.training.mask_scores import mean

Json = dict[str, Any]

#: So many cases beyond the whiskers are drawn for a box, those farthest from it.
FAR = 30
#: Ticks of the distance axis, in its own unit; those for which there is room.
TICKS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
#: The view of all structures together.
ALL = "all structures"


@dataclass(frozen=True)
class _Scale:
    """How values become places on the axis, how they are written, and the axis of those that are shown."""

    place: Callable[[Any], Any]
    write: Callable[[float | None], str]
    x_axis: Callable[[Floats], Json]


def mask_figures(summary: StudySummary, cases: Sequence[LabelCases]) -> list[Json]:
    """All figures of this module that have something to show."""
    return [f for f in (dice_figure(summary, cases), distance_figure(summary, cases)) if f is not None]


def dice_figure(summary: StudySummary, cases: Sequence[LabelCases]) -> Json | None:
    """Dice of the test cases: a view a structure, in it a box a label, best label on top."""
    values = [(label, label.case_dice) for label in cases]

    def x_axis(shown: Floats) -> Json:
        return axis("test Dice of a case", range=[max(0.0, float(shown.min()) - 0.02), 1.015])

    return _figure("structure-dice", summary, values, _Scale(lambda values: values, score, x_axis))


def distance_figure(summary: StudySummary, cases: Sequence[LabelCases]) -> Json | None:
    """Hausdorff distance likewise, on a square-root scale."""
    values = [(label, found) for label in cases if (found := label.case_hd95) is not None]
    title = with_unit("HD95 of a case", distance_unit(summary))

    def x_axis(shown: Floats) -> Json:
        reach = max(1.0, float(np.sqrt(shown.max())))
        ticks = _ticks(reach)
        named = {"tickvals": [float(np.sqrt(tick)) for tick in ticks], "ticktext": [str(tick) for tick in ticks]}
        return axis(title, tickmode="array", tickangle=0, range=[-0.02 * reach, 1.04 * reach], **named)

    # Distances lie near zero with a tail as long as the image; a logarithm would lose the many that are exactly zero.
    return _figure("structure-distance", summary, values, _Scale(np.sqrt, distance, x_axis))


def _ticks(reach: float) -> list[int]:
    """Ticks up to ``reach``, a square root, with room between them on a phone."""
    kept = [0]
    for tick in TICKS[1:]:
        if np.sqrt(kept[-1]) + 0.08 * reach <= np.sqrt(tick) <= reach:
            kept.append(tick)
    return kept


def _figure(
    name: str,
    summary: StudySummary,
    values: Sequence[tuple[LabelCases, Floats]],
    scale: _Scale,
) -> Json | None:
    names, views = summary.study.structures, []
    together = [(label, mean(found, 1)) for label, found in values]
    chosen = [(ALL, together)] if len(names) > 1 else []
    chosen += [(structure, [(label, found[:, k]) for label, found in values]) for k, structure in enumerate(names)]
    for structure, columns in chosen:
        there = [(label, column) for label, column in columns if not np.isnan(column).all()]
        if there:
            views.append(_view(structure, summary, there, scale))
    return figure(name, views, choose="structure") if views else None


def _view(
    structure: str,
    summary: StudySummary,
    columns: Sequence[tuple[LabelCases, Floats]],
    scale: _Scale,
) -> Json:
    styles, data = styles_of(summary), []
    for y, (label, column) in enumerate(columns):
        data += _box(label, column, y, styles[label.label.label], scale)
    every = np.concatenate([column[~np.isnan(column)] for _, column in columns])
    names = category_axis([label.label.label for label, _ in columns], most=60, range=[len(columns) - 0.5, -0.5])
    return view(structure, data, 70 + 34 * len(columns), xaxis=scale.x_axis(every), yaxis=names, showlegend=False)


def _box(label: LabelCases, column: Floats, y: int, style: Style, scale: _Scale) -> list[Json]:
    """A box from its five numbers, its mean, and the cases far from it; the page holds no case that is not drawn."""
    there = ~np.isnan(column)
    values, ids = column[there], label.ids[there]
    low, middle, high = np.percentile(values, [25, 50, 75])
    reach = 1.5 * (high - low)
    inside = values[(values >= low - reach) & (values <= high + reach)]
    ends = {"lowerfence": inside.min(), "q1": low, "median": middle, "q3": high, "upperfence": inside.max()}
    drawn = {name: [_short(scale.place(value))] for name, value in ends.items()}
    box: Json = {"type": "box", "orientation": "h", "y": [y], "width": 0.55, "whiskerwidth": 0.4, "hoverinfo": "skip"}
    box |= {"line": {"color": style.colour, "width": 1.6}, "fillcolor": "var:--panel"} | drawn
    average, name = float(values.mean()), text(label.label.label)
    told = f"mean {scale.write(average)}, median {scale.write(float(middle))}<br>middle half {scale.write(float(low))} "
    told += f"to {scale.write(float(high))}<br>{len(values)} cases, {int((~there).sum())} left out"
    centre = {
        "x": [_short(scale.place(average))],
        "y": [y],
        "mode": "markers",
        "marker": {"color": style.colour, "symbol": style.symbol, "size": 8},
        "hovertemplate": f"<b>{name}</b><br>{told}<extra></extra>",
    }
    far = np.flatnonzero((values < low - reach) | (values > high + reach))
    far = far[np.argsort(-np.abs(values[far] - middle), kind="stable")][:FAR]
    dots = {
        "x": [_short(scale.place(values[n])) for n in far],
        "y": [y] * len(far),
        "mode": "markers",
        "marker": {"color": style.colour, "size": 5, "opacity": 0.6},
        "text": [f"{text(ids[n], 60)}: {scale.write(float(values[n]))}" for n in far],
        "hovertemplate": f"{name}<br>%{{text}}<extra></extra>",
    }
    return [box, *([dots] if len(far) else []), centre]


def _short(value: Any) -> float:
    return round(float(value), 4)
