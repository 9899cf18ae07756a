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
    columns = list(rows[0]) if rows else ["name"]
    table = Table(*columns, box=None, header_style="bold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    Console().print(table)
    return 0


def _rows(kind: str) -> list[dict[str, Any]]:
    if kind == "mixers":
        from mixlab.mixers import MIXERS, mixer_info

        return [mixer_info(name) for name in MIXERS]
    if kind == "models":
        from mixlab.architectures import list_models

        return [{"name": name} for name in list_models()]
    from mixlab.data import list_datasets

    return [{"name": name} for name in list_datasets()]


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}={v}" for k, v in value.items())
    if isinstance(value, bool):
        return "yes" if value else ""
    return "" if value is None else str(value)
