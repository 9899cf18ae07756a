"""Published numbers that a study is set beside: read and checked before training, stored in the study's folder."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from mixlab.errors import Quoted, expected, unknown
from mixlab.studies.facts import FACTS
from mixlab.studies.published_table import METRICS, SCORES, Published, Row, lookup
from mixlab.training.files import write_json

__all__ = ["FILE", "Published", "Row", "load", "prepare", "read", "store"]

#: The stored table, in the study's folder.
FILE: Final = "published.json"


def read(plain: Mapping[str, Any], base: Path) -> Published:
    """Read and check what a study file says under ``published``, and its table.

    Args:
        plain: the mapping of the study file.
        base: the folder that ``table`` is relative to: that of the study file.

    Raises:
        UserError: an unknown key, fact or metric, a value of the wrong kind, a table that cannot be read, a column or
            value that the table lacks, rows that nothing tells apart.
    """
    where = "study published"
    known = [f.name for f in fields(Published) if f.name not in ("rows", "windows")]
    if not isinstance(plain, Mapping):
        raise expected(where, "a mapping", plain, "published: {table: published/table.csv, columns: {...}}")
    for key in plain:
        if key not in known:
            raise unknown(f"key in {where}", str(key), known)
    if not isinstance(plain.get("table"), str) or not plain["table"]:
        raise expected(f"{where}, table", "the path of a CSV file", plain.get("table"), "published/table.csv")
    columns = _texts(plain, "columns")
    if not columns:
        raise expected(f"{where}, columns", "a table column to a fact of a run", columns, "columns: {dataset: data}")
    names = {fact: _texts(_mapping(plain, "names"), fact, f"{where}, names") for fact in _mapping(plain, "names")}
    notes = plain.get("notes") or []
    if not isinstance(notes, list):
        raise expected(f"{where}, notes", "a list of sentences", notes, f"[{notes!r}]")
    head, rows = _read_table(base / plain["table"], f"{where}, table {plain['table']}")
    conditions = _texts(plain, "where")
    kept = [r for r in rows if all(r.values.get(column) == value for column, value in conditions.items())]
    published = Published(
        table=plain["table"],
        source=str(plain.get("source") or ""),
        columns=columns,
        names=names,
        instead=_texts(plain, "instead"),
        where=conditions,
        only={fact: _words(values, fact) for fact, values in _mapping(plain, "only").items()},
        scores=_texts(plain, "scores") or dict(SCORES),
        protocol=_protocol(plain),
        notes=[str(note) for note in notes],
        rows=kept,
        windows=_windows(),
    )
    _check_words(published, head, where)
    _check_rows(published, rows, where)
    return published


def _windows() -> dict[str, Any]:
    """Default kernel size of every mixer there is, those of the user's own files included."""
    from mixlab.mixers import MIXERS
    from mixlab.registry import Part
    from mixlab.studies.run_config import part_kernel

    return {name: part_kernel(Part(name)) for name in MIXERS}


def _mapping(plain: Mapping[str, Any], key: str, where: str = "study published") -> Mapping[str, Any]:
    value = plain.get(key) or {}
    if not isinstance(value, Mapping):
        raise expected(f"{where}, {key}", "a mapping", value, f"{key}: {{a: b}}")
    return value


def _texts(plain: Mapping[str, Any], key: str, where: str = "study published") -> dict[str, str]:
    """A mapping of words; YAML reads some words as numbers or truth values, which a CSV file writes as text."""
    values = _mapping(plain, key, where)
    for name, value in values.items():
        if not isinstance(value, str | int | float):
            raise expected(f"{where}, {key}, {name}", "a word or a number", value)
    return {str(name): str(value) for name, value in values.items()}


def _words(values: Any, fact: str) -> list[str]:
    """One value of a fact, or a list of them."""
    listed = values if isinstance(values, list) else [values]
    if not listed or not all(isinstance(value, str | int | float) for value in listed):
        raise expected(f"study published, only, {fact}", "a value or a list of values", values, f"{fact}: [a, b]")
    return [str(value) for value in listed]


def _protocol(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted fields with plain values."""
    values = {str(key): value for key, value in _mapping(plain, "protocol").items()}
    for key, value in values.items():
        if not isinstance(value, str | int | float | list | None):
            want = "a word, a number, a list or null"
            raise expected(f"study published, protocol, {key}", want, value, f"a dotted field, {key}.FIELD: VALUE")
    return values


def _read_table(path: Path, where: str) -> tuple[list[str], list[Row]]:
    """The head and the rows of a CSV file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        hint = "a path relative to the folder of the study file"
        raise expected(where, "a readable CSV file", Quoted(getattr(error, "strerror", None) or error), hint) from None
    reader = csv.reader(io.StringIO(text, newline=""))
    head = next(reader, [])
    if not head or len(set(head)) != len(head):
        raise expected(where, "a first line of different column names", Quoted(", ".join(head) or "an empty file"))
    rows = []
    for cells in filter(None, reader):  # an empty line is no row
        if len(cells) != len(head):
            raise expected(f"{where}, line {reader.line_num}", f"{len(head)} cells", len(cells), "quotes around commas")
        rows.append(Row(reader.line_num, {name: cell.strip() for name, cell in zip(head, cells, strict=True)}))
    return head, rows


def _check_words(published: Published, head: list[str], where: str) -> None:
    """Columns, facts and metrics by name."""
    for key in ("columns", "where", "scores"):
        for column in getattr(published, key):
            if column not in head:
                raise unknown(f"column of {published.table} in {where}, {key}", column, head)
    for fact in [*published.columns.values(), *published.names, *published.only]:
        if fact not in FACTS:
            raise unknown(f"fact of a run in {where}", fact, FACTS)
    for metric in published.scores.values():
        if metric not in METRICS:
            raise unknown(f"metric in {where}, scores", metric, METRICS)
    needed = [*published.names, *(["data"] if published.instead else [])]
    for fact in needed:
        if fact not in published.columns.values():
            hint = f"columns: {{COLUMN: {fact}}}"
            raise expected(f"{where}, columns", f"a column for {fact}", list(published.columns.values()), hint)
    for data in published.instead:
        if data in published.names.get("data", {}):
            raise expected(f"{where}, instead", "data that `names` does not have", data, "it in one of them only")


def _check_rows(published: Published, rows: Sequence[Row], where: str) -> None:
    """Values that the table has, scores that are numbers, and rows that can be told apart."""
    for column, value in published.where.items():
        _check_value(f"{where}, where, {column}", value, {row.values[column] for row in rows})
    for column, fact in published.columns.items():
        there = {row.values[column] for row in rows}
        own = published.names.get(fact, {}) | (published.instead if fact == "data" else {})
        for value in own.values():
            _check_value(f"{where}, the table's {column} for {fact}", value, there)
    if not published.rows:
        told = ", ".join(f"{k} {v}" for k, v in published.where.items()) or "an empty table"
        raise expected(f"{where}, where", "rows", Quoted(f"none with {told}"))
    for row in published.rows:
        for column in published.scores:
            try:
                row.score(column)
            except ValueError:
                at = f"{where}, table {published.table}, line {row.line}, {column}"
                raise expected(at, "a number or nothing", row.values[column]) from None
    seen: dict[tuple[str, ...], Row] = {}
    for row in published.rows:
        first = seen.setdefault(tuple(row.values[column] for column in published.columns), row)
        if first is not row:
            raise published.ambiguous(f"{where}, columns", [first, row])


def _check_value(where: str, value: str, there: Iterable[str]) -> None:
    if value not in there:
        raise unknown(f"value in {where}", value, there)


def prepare(
    plain: Mapping[str, Any] | None, base: Path, out: Path, configs: Iterable[Mapping[str, Any]] = ()
) -> Published | None:
    """Check a study's published numbers before any training, and store them in its folder for its reports.

    Args:
        plain: what the study file says under ``published``; without it, what an earlier call stored is removed.
        base: the folder of the study file.
        out: the study's folder; exists.
        configs: the content of each run's ``config.yaml``, where there is one: each must match one row at most.

    Raises:
        UserError: see :func:`read` and :meth:`Published.match`; a field of ``protocol`` that no run has.
    """
    if not plain:
        (out / FILE).unlink(missing_ok=True)
        return None
    published, configs = read(plain, base), list(configs)
    for config in configs:
        published.match(published.facts(config))
    for dotted in published.protocol if configs else ():
        if not any(lookup(config, dotted)[0] for config in configs):
            raise expected("study published, protocol", "a field of a run's configuration", dotted, "recipe.epochs")
    store(published, out)
    return published


def store(published: Published, out: Path) -> None:
    """Write ``published.json`` into a study's folder, atomically."""
    write_json(out / FILE, published.to_plain())


def load(out: Path) -> Published | None:
    """What :func:`store` wrote into a study's folder; None where there is none.

    Raises:
        UserError: the file cannot be read.
    """
    path = out / FILE
    if not path.exists():
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return Published(**{**stored, "rows": [Row(**row) for row in stored["rows"]]})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise expected(FILE, "what `mixlab study run` wrote", Quoted(error), "the study run again") from None
