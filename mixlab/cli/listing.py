"""``mixlab list``."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
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
    Console().print(_mixer_table(rows) if given["kind"] == "mixers" else _names(rows), soft_wrap=True)
    return 0


def _names(rows: list[dict[str, Any]]) -> str:
    return "\n".join(row["name"] for row in rows)


def _mixer_table(rows: list[dict[str, Any]]) -> Table:
    """Name, options with defaults, what it includes beside mixing, and a line of documentation."""
    table = Table("name", "options", "includes", "", box=None, header_style="bold")
    table.columns[0].no_wrap = True
    for row in rows:
        options = ", ".join(f"{name}={value}" for name, value in row["options"].items())
        rest = {k: v for k, v in row.items() if k not in ("name", "summary", "options")}
        includes = [
            k.replace("_", " ") if v is True else f"{k} {v}" for k, v in rest.items() if v not in (False, "none")
        ]
        table.add_row(row["name"], options, ", ".join(includes), row["summary"])
    return table


def _rows(kind: str) -> list[dict[str, Any]]:
    if kind == "mixers":
        from mixlab.mixers import MIXERS, mixer_info

        return [mixer_info(name) for name in MIXERS]
    if kind == "models":
        from mixlab.models import list_models

        return [{"name": name} for name in list_models()]
    from mixlab.data import list_datasets

    return [{"name": name} for name in list_datasets()]
