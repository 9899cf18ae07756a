"""Figures of scores: ranking, paired differences, score against cost, learning curves; plain plotly dictionaries."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixlab.studies.report.collect import RunRecord, number
from mixlab.studies.report.style import (
    MUTED,
    Style,
    axis,
    category_axis,
    figure,
    label_styles,
    probability,
    quantity,
    text,
    view,
)
from mixlab.studies.report.summary import METRIC_NAMES, LabelSummary, StudySummary
from mixlab.studies.statistics import Pair

Json = dict[str, Any]

#: The x axes of the cost figure: key of ``summary.json`` and title.
COSTS = (
    ("macs", "multiply-accumulates"),
    ("parameters", "parameters"),
    ("seconds_per_epoch", "seconds per epoch"),
    ("peak_memory_mb", "peak memory, MB"),
)
#: The y axes of the learning curves.
CURVES = (
    ("val/dice", "validation Dice"),
    ("val/macro_f1", "validation macro F1"),
    ("val/balanced_accuracy", "validation balanced accuracy"),
    ("val/loss", "validation loss"),
    ("train/loss", "training loss"),
)


def styles_of(summary: StudySummary) -> dict[str, Style]:
    """A style for each label."""
    return label_styles([(label.label, label.mixer) for label in summary.labels])


def score_figures(summary: StudySummary) -> list[Json]:
    """All figures of this module that have something to show."""
    made = (ranking_figure(summary), differences(summary), cost_figure(summary), learning_curves(summary))
    return [f for f in made if f is not None]


def _legend() -> Json:
    return {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}


def ranking_figure(summary: StudySummary) -> Json | None:
    """Mean, seeds and interval of every ranked label, best on top."""
    rows = summary.ranking.rows
    if not rows:
        return None
    styles = styles_of(summary)
    data: list[Json] = []
    for i, row in enumerate(rows):
        style, low_high = styles[row.label], row.interval
        runs = [run for label in summary.labels if label.label == row.label for run in label.runs]
        data.append(
            {
                "x": [row.mean],
                "y": [i],
                "mode": "markers",
                "marker": {"color": style.colour, "symbol": style.symbol, "size": 12},
                "error_x": _error(row.mean, *low_high, colour=style.colour),
                "hovertemplate": f"<b>{text(row.label)}</b><br>mean {row.mean:.4f}, 95 % {low_high[0]:.3f} to "
                f"{low_high[1]:.3f}<br>group {row.group}<extra></extra>",
            }
        )
        data.append(_seed_dots(runs, i, summary.metric, style))
    height = 110 + 34 * len(rows)
    names = category_axis([row.label for row in rows], most=60, autorange="reversed")
    shown = [edge for row in rows for edge in row.interval] + [x for trace in data for x in trace["x"]]
    low, high = max(0.0, min(shown)), min(1.0, max(shown))
    pad = 0.04 * (high - low) or 0.01
    x = axis(f"test {summary.metric_name}", range=[low - pad, high + pad])
    return figure("ranking", [view("", data, height, xaxis=x, yaxis=names, showlegend=False)])


def _seed_dots(runs: list[RunRecord], y: float, metric: str, style: Style) -> Json:
    scored = [(run, value) for run in runs if (value := run.score("test", metric)) is not None]
    return {
        "x": [value for _, value in scored],
        "y": [y + 0.22] * len(scored),
        "mode": "markers",
        "marker": {"color": style.colour, "size": 6, "opacity": 0.55, "symbol": style.symbol},
        "text": [_who(run) for run, _ in scored],
        "hovertemplate": "%{text}: %{x:.4f}<extra></extra>",
    }


def _who(run: RunRecord) -> str:
    return text(f"{run.label}, seed {run.seed}" + ("" if run.fold is None else f", fold {run.fold}"), 60)


def _error(mean: float, low: float, high: float, colour: str) -> Json:
    bars = {"type": "data", "symmetric": False, "array": [high - mean], "arrayminus": [mean - low]}
    return bars | {"color": colour, "thickness": 1.6, "width": 0}


def differences(summary: StudySummary) -> Json | None:
    """Every label minus a reference that the reader chooses, with simultaneous intervals."""
    ranking = summary.ranking
    if not any(pair.n for pair in ranking.pairs):
        return None
    names = [row.label for row in ranking.rows]
    views = [_against(summary, reference, [n for n in names if n != reference]) for reference in names]
    return figure("differences", views, choose="reference")


def _against(summary: StudySummary, reference: str, others: list[str]) -> Json:
    styles, data = styles_of(summary), []
    for i, other in enumerate(others):
        pair = summary.ranking.pair(other, reference)
        if not pair.n:
            continue
        difference, low, high = _signed(pair, other)
        colour = styles[other].colour if pair.distinguishable else MUTED
        symbol = styles[other].symbol + ("" if pair.distinguishable else "-open")
        verdict = "not distinguishable"
        if pair.distinguishable:
            verdict = f"{text(other if difference > 0 else reference)} better"
        data.append(
            {
                "x": [difference],
                "y": [i],
                "mode": "markers",
                "marker": {"color": colour, "symbol": symbol, "size": 11, "line": {"width": 2, "color": colour}},
                "error_x": _error(difference, low, high, colour),
                "hovertemplate": f"{text(other)} minus {text(reference)}: {difference:+.4f}<br>"
                f"{low:+.3f} to {high:+.3f}, p {_probability_text(pair)}<br>{verdict}<extra></extra>",
            }
        )
    zero = {"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1, "line": {"color": MUTED, "width": 1}}
    x = axis(f"difference in test {summary.metric_name}", nticks=7)
    y = category_axis(others, most=60, range=[len(others) - 0.5, -0.5])
    return view(reference, data, 110 + 32 * len(others), xaxis=x, yaxis=y, shapes=[zero], showlegend=False)


def _probability_text(pair: Pair) -> str:
    """``= 0.03`` or ``< 0.001``, as figures read HTML."""
    p = probability(pair.p_adjusted)
    return text(p) if p.startswith("<") else f"= {p}"


def _signed(pair: Pair, first: str) -> tuple[float, float, float]:
    """Difference and interval of ``first`` minus the other."""
    if pair.a == first:
        return pair.difference, pair.low, pair.high
    return -pair.difference, -pair.high, -pair.low


def cost_figure(summary: StudySummary) -> Json | None:
    """Mean test score of every label against one of four costs."""
    styles, views = styles_of(summary), []
    for key, title in COSTS:
        data = []
        for label in summary.labels:
            cost, average = label.cost(key), label.test(summary.metric)
            if cost is None or average is None:
                continue
            data.append(_cost_point(label, cost, average.mean, styles[label.label], title, summary.metric))
        if data:
            wide = _span([d["x"][0] for d in data]) > 20
            x = axis(title, type="log" if wide else "linear", tickformat="~s", nticks=7)
            y = axis(f"test {summary.metric_name}")
            height = 400 + 12 * len(data)
            views.append(view(title, data, height, xaxis=x, yaxis=y, legend=_legend()))
    return figure("cost", views, choose="cost") if views else None


def _span(values: list[float]) -> float:
    return max(values) / min(values) if min(values) > 0 else 1.0


def _cost_point(label: LabelSummary, cost: float, mean: float, style: Style, title: str, metric: str) -> Json:
    spread = label.rank.sd if label.rank is not None and label.rank.sd is not None else None
    seeds = [v for run in label.runs if (v := run.score("test", metric)) is not None]
    error = _error(mean, min(seeds), max(seeds), style.colour) if len(seeds) > 1 else {"visible": False}
    return {
        "x": [cost],
        "y": [mean],
        "name": text(label.label),
        "legendgroup": label.label,
        "mode": "markers",
        "marker": {"color": style.colour, "symbol": style.symbol, "size": 13},
        "error_y": error,
        "hovertemplate": f"<b>{text(label.label)}</b><br>{mean:.4f}"
        + ("" if spread is None else f" ± {spread:.4f}")
        + f"<br>{title}: {quantity(cost)}<extra></extra>",
    }


def learning_curves(summary: StudySummary) -> Json | None:
    """A metric per epoch: each run as a thin line, the mean of a label's runs as a strong one."""
    styles, views = styles_of(summary), []
    for key, title in CURVES:
        data = [trace for label in summary.labels for trace in _curves(label, key, styles[label.label])]
        if data:
            height = 420 + 12 * len(summary.labels)
            x, y = axis("epoch", nticks=9), axis(title)
            views.append(view(METRIC_NAMES.get(key, title), data, height, xaxis=x, yaxis=y, legend=_legend()))
    return figure("curves", views, choose="metric") if views else None


def _curves(label: LabelSummary, key: str, style: Style) -> list[Json]:
    lines = []
    for run in label.every:
        points = [(int(row["epoch"]), value) for row in run.history if (value := number(row.get(key))) is not None]
        if points:
            lines.append((run, points))
    if not lines:
        return []
    group = {"legendgroup": label.label, "mode": "lines"}
    thin = {"color": style.colour, "width": 1, "dash": style.dash}
    traces: list[Json] = [
        group
        | {
            "x": [e for e, _ in points],
            "y": [v for _, v in points],
            "line": thin,
            "opacity": 0.45 if len(lines) > 1 else 1.0,
            "showlegend": len(lines) == 1,
            "name": text(label.label),
            "hovertemplate": f"{_who(run)}{'' if run.finished else ' (' + run.state + ')'}<br>epoch %{{x}}: "
            "%{y:.4f}<extra></extra>",
        }
        for run, points in lines
    ]
    if len(lines) > 1:
        traces.append(group | _mean_line(label.label, [points for _, points in lines], style))
    return traces


def _mean_line(label: str, lines: list[list[tuple[int, float]]], style: Style) -> Json:
    by_epoch: dict[int, list[float]] = {}
    for points in lines:
        for epoch, value in points:
            by_epoch.setdefault(epoch, []).append(value)
    # A mean over fewer runs would jump where one of them ends, so the strong line stops there.
    shared = [epoch for epoch in sorted(by_epoch) if len(by_epoch[epoch]) == len(lines)]
    return {
        "x": shared,
        "y": [float(np.mean(by_epoch[e])) for e in shared],
        "line": {"color": style.colour, "width": 2.4, "dash": style.dash},
        "name": text(label),
        "hovertemplate": f"<b>{text(label)}</b>, mean of {len(lines)}<br>epoch %{{x}}: %{{y:.4f}}<extra></extra>",
    }
