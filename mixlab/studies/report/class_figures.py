"""The figures of classes: recall of every class, and confusion matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlab.studies.report.style import INK, category_axis, figure, text, view
from mixlab.studies.report.summary import LabelSummary, StudySummary

Json = dict[str, Any]

#: Up to this many classes the cells of a matrix carry their number.
WRITTEN = 12
SCALE = [[0.0, "var:--heat0"], [0.5, "var:--heat1"], [1.0, "var:--heat2"]]


def class_figures(summary: StudySummary) -> list[Json]:
    """All figures of this module that have something to show."""
    return [f for f in (recall_figure(summary), confusion_figure(summary)) if f is not None]


def _mean_array(label: LabelSummary, key: str, classes: int) -> NDArray[np.float64] | None:
    """Mean of an array of the test results over a label's runs; runs of another shape are left out."""
    arrays = []
    for run in label.runs:
        try:
            array = np.asarray((run.summary.get("test") or {}).get(key), dtype=np.float64)
        except (TypeError, ValueError):
            continue
        if array.ndim and len(array) == classes:
            arrays.append(_shares(array) if key == "confusion" else array)
    return np.mean(arrays, axis=0) if arrays else None


def _shares(confusion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each row of the truth as shares of its sum."""
    total = confusion.sum(axis=-1, keepdims=True)
    return np.divide(confusion, total, out=np.zeros_like(confusion), where=total > 0)


def _heat(values: NDArray[np.float64], low: float, written: bool, hover: str, **extra: Any) -> Json:
    rounded = [[None if np.isnan(v) else round(float(v), 3) for v in row] for row in values]
    trace = {"type": "heatmap", "z": rounded, "zmin": low, "zmax": 1.0, "colorscale": SCALE, "hovertemplate": hover}
    trace |= {"showscale": not written}
    trace |= {"colorbar": {"thickness": 10, "outlinewidth": 0, "tickformat": ".0%", "len": 0.9, "x": 1.01}}
    gap = {"xgap": 2, "ygap": 2} if values.shape[1] <= 40 else {}
    return trace | gap | ({"texttemplate": "%{text}", "textfont": {"color": INK}} if written else {}) | extra


def _named(rows: list[str], columns: list[str]) -> Json:
    """Names for the hover text; the page's script makes a pair for each cell of them, which would be long to store."""
    return {"rows": [text(name, 40) for name in rows], "columns": [text(name, 40) for name in columns]}


def recall_figure(summary: StudySummary) -> Json | None:
    """Recall on test: a row a label, a column a class."""
    classes = summary.study.classes
    found = [(label, _mean_array(label, "per_class_recall", len(classes))) for label in summary.labels]
    rows = [(label.label, recall) for label, recall in found if recall is not None]
    if not rows or not classes:
        return None
    values = np.stack([recall for _, recall in rows])
    written = len(classes) <= WRITTEN
    low = min(0.9, float(np.floor(np.nanmin(values) * 10) / 10))
    labels = [label for label, _ in rows]
    hover = "<b>%{customdata[0]}</b><br>class %{customdata[1]}: recall %{z:.1%}<extra></extra>"
    cells = [[f"{100 * v:.0f}" for v in row] for row in values] if written else None
    trace = _heat(values, low, written, hover, names=_named(labels, classes), **({"text": cells} if cells else {}))
    x = category_axis(classes, "true class")
    y = category_axis(labels, most=60, autorange="reversed")
    return figure("recall", [view("", [trace], 140 + 34 * len(rows), xaxis=x, yaxis=y)])


def confusion_figure(summary: StudySummary) -> Json | None:
    """The mean confusion matrix of each label, as shares of the true class; one view a label."""
    classes, views = summary.study.classes, []
    for label in summary.labels:
        matrix = _mean_array(label, "confusion", len(classes))
        if matrix is None:
            continue
        if matrix.ndim == 3:
            views.append(_multilabel_view(label, matrix, classes))
        elif matrix.shape == (len(classes), len(classes)):
            views.append(_matrix_view(label, matrix, classes))
    if not views:
        return None
    return figure("confusion", views, choose="mixer", square=not any(v["wide"] for v in views))


def _matrix_view(label: LabelSummary, matrix: NDArray[np.float64], classes: list[str]) -> Json:
    written = len(classes) <= WRITTEN
    hover = f"true %{{customdata[0]}}<br>predicted %{{customdata[1]}}<br>%{{z:.1%}} (mean of {len(label.runs)})"
    cells = [[f"{100 * v:.0f}" if v >= 0.005 else "" for v in row] for row in matrix] if written else None
    trace = _heat(
        matrix,
        0.0,
        written,
        hover + "<extra></extra>",
        names=_named(classes, classes),
        **({"text": cells} if cells else {}),
    )
    x = category_axis(classes, "predicted")
    y = category_axis(classes, "true", autorange="reversed")
    return view(label.label, [trace], 560, xaxis=x, yaxis=y) | {"wide": False}


def _multilabel_view(label: LabelSummary, tables: NDArray[np.float64], classes: list[str]) -> Json:
    """A row a class: the share found where it is present, and the share claimed where it is absent."""
    values = np.stack([tables[:, 1, 1], tables[:, 0, 1]], axis=1)
    columns = ["found where present", "claimed where absent"]
    hover = "<b>%{customdata[0]}</b><br>%{customdata[1]}: %{z:.1%}<extra></extra>"
    written = len(classes) <= 40
    cells = {"text": [[f"{100 * v:.0f}" for v in row] for row in values]} if written else {}
    trace = _heat(values, 0.0, written, hover, names=_named(classes, columns), **cells)
    x = category_axis(columns, side="top")
    y = category_axis(classes, most=50, autorange="reversed")
    height = 90 + max(120, min(24 * len(classes), 1100))
    return view(label.label, [trace], height, xaxis=x, yaxis=y) | {"wide": True}
