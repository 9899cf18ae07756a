"""What the values of stored masks mean: classes by value or by colour, from a file or from the masks.

A class file stands next to the images and is one of:

* ``classes.json``: a list of names (values 0, 1, 2, ...), or an object ``{"name": value}`` where a value is an integer,
  a colour ``"#rrggbb"`` or a colour ``[r, g, b]``; ``{"0": "name"}`` does as well;
* ``classes.txt``: a line a class, ``name`` (values 0, 1, 2, ...) or ``name: value``, where a value is an integer,
  ``#rrggbb`` or ``r g b``;
* ``index.json`` with ``"classes"`` as in ``classes.json``.

The order in the file is the order of the classes. The name ``ignore`` is no class: its pixels count for nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixlab.data.images import Array
from mixlab.data.masks import IGNORE, MOST_CLASSES, listed
from mixlab.errors import Quoted, UserError, expected

FILES = ("classes.json", "classes.txt", "index.json")
IGNORED = "ignore"
BACKGROUND = "background"
MOST_GUESSED = 32
"""More values than this in masks without a class file are objects by number, not classes."""


@dataclass(frozen=True)
class MaskClasses:
    """Names of classes, and the stored value of each: an integer, or a colour packed by :func:`packed`."""

    names: tuple[str, ...]
    values: tuple[int, ...]
    coloured: bool = False
    ignored: int | None = None
    """The stored value of pixels that count for nothing."""

    @property
    def background(self) -> int | None:
        """The class called ``background``, in any case."""
        return next((i for i, name in enumerate(self.names) if name.lower() == BACKGROUND), None)

    def indices(self, stored: Array) -> Array:
        """Class indices, uint8, of stored values or packed colours of any shape.

        Raises:
            ValueError: a value is no class.
        """
        known = [*self.values, *([] if self.ignored is None else [self.ignored])]
        order = np.argsort(known)
        ranked = np.array(known)[order]
        classes = np.array([*range(len(self.values)), IGNORE], dtype=np.uint8)[order]
        place = np.minimum(np.searchsorted(ranked, stored), len(ranked) - 1)
        wrong = np.unique(stored[ranked[place] != stored])
        if len(wrong):
            raise ValueError(f"it has {listed([self.shown(v) for v in wrong])} outside the classes {self._said()}")
        return classes[place]

    def shown(self, value: int) -> str:
        """A stored value as a user writes it."""
        return f"#{int(value):06x}" if self.coloured else str(int(value))

    def _said(self) -> str:
        known = [f"{self.shown(v)} ({name})" for name, v in zip(self.names, self.values, strict=True)]
        return ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")


def packed(colours: Array) -> Array:
    """One integer ``0xrrggbb`` for each colour of ``(..., 3)`` uint8."""
    red, green, blue = np.moveaxis(np.asarray(colours).astype(np.int64), -1, 0)
    return (red << 16) | (green << 8) | blue


def read_classes(root: Path) -> MaskClasses | None:
    """The classes that a file in ``root`` names, or None without such a file.

    Raises:
        UserError: the file cannot be read, or is not as the module's text says.
    """
    for name in FILES:
        path = root / name
        if not path.is_file():
            continue
        if name == "classes.txt":
            return _classes(_lines(path), path)
        content = read_json(path)
        found = content.get("classes") if name == "index.json" and isinstance(content, Mapping) else content
        if found is not None:
            return as_classes(found, path)
    return None


def as_classes(found: Any, path: Path) -> MaskClasses:
    """Classes from the content of ``path``, written as in ``classes.json``.

    Raises:
        UserError: it is not as the module's text says.
    """
    return _classes(_entries(found, path), path)


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise expected(str(path), "a JSON file", Quoted(str(error))) from None


def _wrong(path: Path, got: object) -> UserError:
    want = "a list of names, or names with integers or with colours"
    return expected(f"classes in {path.name}", want, got, '{"background": 0, "lung": 1}')


def _lines(path: Path) -> list[tuple[str, Any]]:
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if not any(":" in line for line in lines):
        return [(name, value) for value, name in enumerate(lines)]
    pairs = [line.rpartition(":")[::2] for line in lines]
    return [(name.strip(), value.strip()) for name, value in pairs]


def _entries(found: Any, path: Path) -> list[tuple[str, Any]]:
    if isinstance(found, list):
        return [(name, value) for value, name in enumerate(found)]
    if not isinstance(found, Mapping):
        raise _wrong(path, found)
    if found and all(key.isdigit() and isinstance(name, str) for key, name in found.items()):
        return [(str(name), int(key)) for key, name in found.items()]
    return list(found.items())


def _classes(entries: Sequence[tuple[Any, Any]], path: Path) -> MaskClasses:
    read = [(name, _value(value, path)) for name, value in entries]
    names = [name for name, _ in read]
    values = [value for _, (value, _) in read]
    if not read or not all(isinstance(n, str) and n for n in names) or len({c for _, (_, c) in read}) > 1:
        raise _wrong(path, dict(entries))
    twice = [str(x) for xs in (names, values) for x in set(xs) if xs.count(x) > 1]
    if twice or len(names) > MOST_CLASSES:
        got = Quoted(f"twice: {', '.join(twice)}" if twice else f"{len(names)} classes")
        raise expected(f"classes in {path.name}", f"at most {MOST_CLASSES} classes, each name and value once", got)
    kept = [(name, value) for name, value in zip(names, values, strict=True) if name.lower() != IGNORED]
    return MaskClasses(
        names=tuple(name for name, _ in kept),
        values=tuple(value for _, value in kept),
        coloured=read[0][1][1],
        ignored=next((v for n, v in zip(names, values, strict=True) if n.lower() == IGNORED), None),
    )


def _value(value: Any, path: Path) -> tuple[int, bool]:
    """The stored value, and whether it is a colour."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value, False
    if isinstance(value, str) and value.isdigit():
        return int(value), False
    if isinstance(value, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        return int(value[1:], 16), True
    parts = value.split() if isinstance(value, str) else value
    if isinstance(parts, list) and len(parts) == 3 and all(str(p).isdigit() and int(p) < 256 for p in parts):
        return int(packed(np.array([int(p) for p in parts]))), True
    raise _wrong(path, value)


def guessed(values: Sequence[int], where: str) -> MaskClasses:
    """Classes from the values that masks have: 0 is taken as the background.

    Raises:
        UserError: the values are not 0, 1, 2, ..., or too many for classes.
    """
    found = sorted(set(values))
    if not found or found[-1] != len(found) - 1 or not 2 <= len(found) <= MOST_GUESSED:
        hint = "data.instances: true if values number objects (or 255 marks them), else a classes.json that names them"
        got = Quoted(listed(found))
        raise expected(f"{where}, masks", f"the values 0, 1, 2, ... of at most {MOST_GUESSED} classes", got, hint)
    return MaskClasses((BACKGROUND, *(f"class {v}" for v in found[1:])), tuple(found))
