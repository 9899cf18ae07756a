"""How labels, numbers and axes look: shared by all figures, the table and the terminal.

Colours are names of CSS variables (``var:--c0``); the page's script puts in the values of the light or dark theme.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

#: The Okabe-Ito palette, in the order in which mixers get colours; its values are in ``report.css``.
COLOURS = tuple(f"var:--c{i}" for i in range(8))
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star", "x", "hexagon")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
#: What stands where there is no number.
NOTHING = "\N{EN DASH}"
MUTED, INK, GRID = "var:--muted", "var:--ink", "var:--rule"


@dataclass(frozen=True)
class Style:
    """The look of one label: colour by mixer, symbol and dash by what else differs (the kernel size)."""

    colour: str
    symbol: str
    dash: str

    @property
    def css(self) -> str:
        """The colour as CSS."""
        return f"var({self.colour.removeprefix('var:')})"


def label_styles(labels: Sequence[tuple[str, str]]) -> dict[str, Style]:
    """Give each ``(label, mixer)`` a style; past eight mixers colours come again with other symbols."""
    mixers = sorted({mixer for _, mixer in labels})
    used = [0] * len(COLOURS)
    styles = {}
    for label, mixer in sorted(labels):
        place = mixers.index(mixer) % len(COLOURS)
        turn = used[place]
        used[place] += 1
        styles[label] = Style(COLOURS[place], SYMBOLS[turn % len(SYMBOLS)], DASHES[turn % len(DASHES)])
    return styles


def text(value: object, limit: int = 28) -> str:
    """Text for a figure: short, and escaped, because plotly reads a subset of HTML."""
    plain = str(value)
    return html.escape(plain if len(plain) <= limit else plain[: limit - 1] + "…")


def quantity(value: float | None, digits: int = 3) -> str:
    """A number with a magnitude letter: 11.9 M; an empty cell is a dash."""
    if value is None:
        return NOTHING
    for size, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.{digits}g}{letter}"
    return f"{value:.{digits}g}"


def score(value: float | None) -> str:
    """A score with three decimals."""
    return NOTHING if value is None else f"{value:.3f}"


def distance(value: float | None) -> str:
    """A distance with three digits, at most two of them decimals."""
    if value is None:
        return NOTHING
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def probability(p: float) -> str:
    """A p value with two digits; very small ones are not worth their digits."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def axis(title: str = "", **extra: Any) -> dict[str, Any]:
    """An axis in the report's style."""
    base = {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "automargin": True, "fixedrange": True}
    return base | ({"title": {"text": title, "standoff": 12}} if title else {}) | extra


def category_axis(names: Sequence[str], title: str = "", most: int = 25, **extra: Any) -> dict[str, Any]:
    """An axis of positions 0, 1, ... with names; with many of them only every n-th is written."""
    step = max(1, -(-len(names) // most))
    places = list(range(0, len(names), step))
    ticks = {"tickmode": "array", "tickvals": places, "ticktext": [text(names[i], 22) for i in places]}
    return axis(title, **({"showgrid": False} | ticks | extra))


def figure(name: str, views: list[dict[str, Any]], *, choose: str = "", square: bool = False) -> dict[str, Any]:
    """What the page's script draws: one or more views ``{name, data, layout}`` that the reader switches between."""
    return {"id": name, "views": views, "choose": choose, "square": square}


def view(name: str, data: list[dict[str, Any]], height: int, **layout: Any) -> dict[str, Any]:
    """One view of a figure."""
    return {"name": name, "data": data, "layout": {"height": height} | layout}
