"""``mixlab list``."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console, Group
from rich.table import Table

from mixlab.errors import unknown

KINDS = ("models", "mixers", "datasets")


def show(words: list[str]) -> int:
    """List models, mixers or datasets."""
    from mixlab.cli.arguments import make_parser, parse
    from mixlab.studies.user_files import import_files

    parser = make_parser("list", "List what there is: models, mixers or datasets.")
    parser.add_argument("kind", type=str, help=" | ".join(KINDS))
    parser.add_argument("--json", type=bool, default=False, help="print JSON")
    parser.add_argument("--imports", type=list[str], default=[], help="Python files with mixers of your own (--import)")
    given = parse(parser, words)
    if given["kind"] not in KINDS:
        raise unknown("list", given["kind"], KINDS)
    import_files(given.get("imports") or [])
    rows = _rows(given["kind"])
    if given.get("json"):
        print(json.dumps(rows, indent=2, default=str))
        return 0
    tables = {"mixers": _mixer_tables, "models": _model_table}
    Console().print(tables.get(given["kind"], _names)(rows), soft_wrap=True)
    return 0


def _names(rows: list[dict[str, Any]]) -> str:
    return "\n".join(row["name"] for row in rows)


def _mixer_tables(rows: list[dict[str, Any]]) -> Group:
    """What each mixer includes beside mixing; below, its options with defaults and a line of documentation."""
    from mixlab.mixers import FACTS

    facts = Table(box=None, header_style="bold", padding=(0, 1, 0, 0), caption_justify="left", caption=_MIXER_CAPTION)
    facts.add_column("name", no_wrap=True)
    for fact in FACTS:
        facts.add_column(_SYLLABLES.get(fact, fact), no_wrap=True)
    for row in rows:
        facts.add_row(row["name"], *(_fact(row[fact]) for fact in FACTS))
    options = Table("name", "options", "", box=None, header_style="bold")
    options.columns[0].no_wrap = True
    for row in rows:
        text = ", ".join(f"{name}={value}" for name, value in row["options"].items())
        options.add_row(row["name"], text, row["summary"])
    return Group(facts, "", options)


_SYLLABLES = {
    "subtracts_input": "sub-\ntracts\ninput",
    "projections": "projec-\ntions",
    "mixes_channels": "mixes\nchannels",
}
_MIXER_CAPTION = (
    "With default options. bias: adds learned constants. position -: what it sees may\n"
    "change places. reach: how far one application looks. More: --json."
)


def _fact(value: Any) -> str:
    return {True: "yes", False: "-", None: "?", "none": "-"}.get(value, str(value))


def _model_table(rows: list[dict[str, Any]]) -> Table:
    """Name, what we count, and beside it what was published."""
    table = Table(box=None, header_style="bold", caption_justify="left", caption=_MODEL_CAPTION)
    for index, header in enumerate(("name", "M", "said", "G", "said", "px", "top-1", "source")):
        table.add_column(header, justify="left" if index in (0, 7) else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["name"],
            _shown(row["parameters"], ".2f", 1e6),
            _shown(row["published_parameters"]),
            _shown(row["macs"], ".2f", 1e9),
            _shown(row["published_macs"]),
            str(row["image_size"]),
            _shown(row["published_top1"], ".1f"),
            (row["paper"] or "mixlab").removeprefix("arXiv:"),
        )
    return table


_MODEL_CAPTION = (
    "M: million parameters. G: thousand million multiply-accumulates\nfor one image of px pixels, by our formulas. "
    "said: as published.\ntop-1: published, ImageNet-1K, per cent. More: --json, docs/architectures.md."
)


def _shown(value: float | None, form: str = "g", unit: float = 1) -> str:
    return "-" if value is None else format(value / unit, form)


def _rows(kind: str) -> list[dict[str, Any]]:
    if kind == "mixers":
        from mixlab.mixers import MIXERS, mixer_info

        return [mixer_info(name) for name in MIXERS]
    if kind == "models":
        from mixlab.models import list_models, model_info

        return [model_info(name) for name in list_models()]
    from mixlab.data import list_datasets

    return [{"name": name} for name in list_datasets()]
