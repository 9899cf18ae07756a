"""``csv:PATH``: a table of your own with the columns ``path,label[,split][,group]``.

Image paths are relative to ``root``, or without one to the table's folder. A group (a patient) is never divided by the
splits and folds that are drawn here; one that the table itself divides is an error. A case without a group stands for
itself. Labels are names; when all are integers they are ordered by value.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from mixlab.data.card import Event, event
from mixlab.data.config import DataConfig
from mixlab.data.files import FileImages
from mixlab.data.raw import RawData
from mixlab.data.readers import SUFFIXES, kind_of
from mixlab.data.sources import register_dataset
from mixlab.data.sources.folder import NOTES, SPLIT_NAMES
from mixlab.errors import Quoted, expected, nearest

COLUMNS = ("path", "label", "split", "group")
Rows = list[dict[str, str]]


def table_at_hand(_config: DataConfig, argument: str) -> bool:
    """Whether there is anything at the table's path; without a path there is nothing to miss."""
    return Path(argument).expanduser().exists()


@register_dataset("csv", pattern="csv:PATH", at_hand=table_at_hand)
def open_csv(config: DataConfig, argument: str) -> RawData:
    """The images that a table names.

    Raises:
        UserError: no such table or column, missing files, unknown split names, a path that is listed twice.
    """
    table = Path(argument).expanduser()
    where = f"data csv:{argument}"
    if not argument or not table.is_file():
        raise expected(where, "an existing CSV file", str(table), "csv:path/to/table.csv")
    rows = read_table(table, where)
    root = Path(config.root).expanduser() if config.root is not None else table.parent
    paths = _files(root, rows, where)
    ids, events = _ids(root, rows)
    classes = class_names([row["label"] for row in rows])
    numbers = {name: i for i, name in enumerate(classes)}
    groups, single = _groups(rows)
    return RawData(
        name=f"csv:{table.name}",
        task="classification",
        classes=classes,
        images=FileImages(paths, [row["path"] for row in rows]),
        targets=np.array([numbers[row["label"]] for row in rows], dtype=np.int64),
        ids=ids,
        given=_splits(rows, where),
        groups=groups,
        source="a table of the user",
        licence="not known",
        notes=NOTES,
        events=events + single,
    )


def read_table(table: Path, where: str) -> Rows:
    """The rows with stripped values.

    Raises:
        UserError: it cannot be read, a column is missing or not known, a row has no path or label.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = [c.strip() for c in reader.fieldnames or ()]
            rows = [
                {c: (v or "").strip() for c, v in zip(columns, row.values(), strict=False)}
                for row in reader
                if any(isinstance(v, str) and v.strip() for v in row.values())
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise expected(where, "a CSV file in UTF-8", Quoted(str(error))) from error
    missing = [c for c in ("path", "label") if c not in columns]
    if missing:
        close = [n for c in missing for n in nearest(c, columns)]
        hint = f"renaming {close[0]!r}" if close else "path,label[,split][,group] as the first line"
        raise expected(where, "the columns path and label", Quoted(f"{columns} without {', '.join(missing)}"), hint)
    empty = [str(i + 2) for i, row in enumerate(rows) if not row["path"] or not row["label"]]
    if empty or not rows:
        got = Quoted(f"none in line {', '.join(empty[:20])}" if rows else "an empty table")
        raise expected(where, "a path and a label in each line", got)
    return rows


def _files(root: Path, rows: Rows, where: str) -> list[Path]:
    paths = [root / row["path"] for row in rows]
    faults = []
    seen: set[str] = set()
    for row, path in zip(rows, paths, strict=True):
        if row["path"] in seen:
            faults.append(f"{row['path']}: listed twice")
        elif kind_of(path) is None:
            faults.append(f"{row['path']}: no image format; known are {', '.join(SUFFIXES)}")
        elif not path.is_file():
            faults.append(f"{row['path']}: no such file")
        seen.add(row["path"])
    if faults:
        more = f"\n  ... and {len(faults) - 50} more" if len(faults) > 50 else ""
        head = f"{len(faults)} of {len(rows)} lines at fault (--data-root FOLDER, if they lie elsewhere)"
        got = Quoted(f"{head}:\n  " + "\n  ".join(faults[:50]) + more)
        raise expected(where, f"image files under {root}", got)
    return paths


def _ids(root: Path, rows: Rows) -> tuple[list[str], list[Event]]:
    """Paths relative to ``root``: seeded splits are drawn from them, on every machine alike."""
    base = root.resolve()
    ids = []
    for row in rows:
        path = Path(row["path"])
        inside = path.is_absolute() and path.resolve().is_relative_to(base)
        ids.append((path.resolve().relative_to(base) if inside else path).as_posix())
    outside = sum(Path(i).is_absolute() for i in ids)
    message = f"{outside} absolute paths outside {root.name or root}: splits drawn here depend on them"
    return ids, [event("paths", message)] if outside else []


def class_names(labels: list[str]) -> tuple[str, ...]:
    """The labels that occur, in order: by value if all are integers, else by name."""
    names = set(labels)
    integers = all(name.lstrip("-").isdigit() for name in names)
    return tuple(sorted(names, key=int) if integers else sorted(names))


def _splits(rows: Rows, where: str) -> list[str] | None:
    if not any(row.get("split") for row in rows):
        return None
    wrong = sorted({row["split"] for row in rows if row["split"].lower() not in SPLIT_NAMES})
    if wrong:
        raise expected(f"{where}, column split", f"one of {', '.join(SPLIT_NAMES)} in each line", wrong)
    return [SPLIT_NAMES[row["split"].lower()] for row in rows]


def _groups(rows: Rows) -> tuple[list[str] | None, list[Event]]:
    if not any(row.get("group") for row in rows):
        return None, []
    single = sum(not row["group"] for row in rows)
    groups = [row["group"] or f"case {row['path']}" for row in rows]
    message = f"{single} cases have no group; each stands for itself"
    return groups, [event("groups", message)] if single else []
