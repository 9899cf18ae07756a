"""A table of published numbers, and how its rows are found from a run's facts; see :mod:`mixlab.studies.published`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from mixlab.errors import Quoted, UserError, expected
from mixlab.studies.facts import Facts, facts_of, flat

#: Table column to test metric, where the study does not say.
SCORES: Final = {"acc": "balanced_accuracy", "auc": "auroc", "f1": "macro_f1"}
#: Test metrics that a table's column may be set beside.
METRICS: Final = ("macro_f1", "balanced_accuracy", "accuracy", "auroc", "dice", "dice_unmasked", "hd95")


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Args:
        line: its line in the file; the head is line 1.
        values: column to text.
    """

    line: int
    values: dict[str, str]

    def score(self, column: str) -> float | None:
        """A number of the row; None where the cell is empty; ValueError for anything else."""
        text = self.values[column]
        number = float(text) if text else None
        if number is not None and not math.isfinite(number):
            raise ValueError(text)
        return number


@dataclass(frozen=True, kw_only=True)
class Published:
    """A table of published numbers, read and checked."""

    table: str
    """Path of the CSV file, from the folder of the study file."""
    source: str = ""
    """Where the numbers are from, in words."""
    columns: dict[str, str] = field(default_factory=dict)
    """Table column to fact of a run, see :data:`mixlab.studies.facts.FACTS`."""
    names: dict[str, dict[str, str]] = field(default_factory=dict)
    """For a fact: our value to the table's. Values that are not in it are the same in both."""
    instead: dict[str, str] = field(default_factory=dict)
    """Data sets that the table lacks, to the table's data set that they are set beside."""
    where: dict[str, str] = field(default_factory=dict)
    """Table column to the value that a row must have there."""
    only: dict[str, list[str]] = field(default_factory=dict)
    """Fact to the values of which a run must have one to be set beside the table at all."""
    scores: dict[str, str] = field(default_factory=lambda: dict(SCORES))
    """Table column to test metric."""
    protocol: dict[str, Any] = field(default_factory=dict)
    """Dotted field of a run's configuration to its value in the publication."""
    notes: list[str] = field(default_factory=list)
    """Further differences, which hold for all runs."""
    rows: list[Row] = field(default_factory=list)
    """The table's rows that fulfil ``where``."""
    windows: dict[str, Any] = field(default_factory=dict)
    """Default kernel size by mixer when the study was prepared; None for a mixer without a window."""

    def facts(self, config: Mapping[str, Any]) -> Facts:
        """The facts of a run, from the content of its ``config.yaml``."""
        return facts_of(config, self.windows)

    def match(self, facts: Facts) -> Row | None:
        """The row of a run; None where the table has none, or is not for it. A fact that does not apply (None) matches
        every value.

        Raises:
            UserError: several rows match.
        """
        if any(facts[fact] not in values for fact, values in self.only.items()):
            return None
        wanted = {column: self._told(fact, facts[fact]) for column, fact in self.columns.items()}
        found = [r for r in self.rows if all(v is None or r.values[c] == v for c, v in wanted.items())]
        if len(found) > 1:
            told = ", ".join(f"{fact} {facts[fact]}" for fact in self.columns.values() if facts[fact] is not None)
            raise self.ambiguous(f"published {self.table}, {told}", found)
        return found[0] if found else None

    def instead_of(self, facts: Facts) -> str | None:
        """The table's data set that a run's other data set is set beside; None where it is the same data set."""
        return self.instead.get(facts["data"] or "") if "data" in self.columns.values() else None

    def remarks(self, row: Row) -> list[str]:
        """What the table says of a row beside scores and what it is matched by: notes, whether a run diverged."""
        used = {*self.columns, *self.where, *self.scores}
        told = []
        for column, text in row.values.items():
            everywhere = len(self.rows) > 1 and len({r.values[column] for r in self.rows}) == 1
            if column in used or text in ("", "False") or everywhere:
                continue
            plain = column in ("note", "remark")
            told.append(text if plain else column if text == "True" else f"{column}: {text}")
        return told

    def to_plain(self) -> dict[str, Any]:
        """All of it as plain values, rows included; :func:`load` reads them."""
        return asdict(self)

    def _told(self, fact: str, value: str | None) -> str | None:
        """A fact's value as the table writes it."""
        if value is None:
            return None
        if fact == "data" and value in self.instead:
            return self.instead[value]
        return self.names.get(fact, {}).get(value, value)

    def ambiguous(self, where: str, found: Sequence[Row]) -> UserError:
        """The error for rows that nothing tells apart, naming the first two."""
        columns = [c for c in found[0].values if c not in self.scores]
        rows = [f"line {r.line} ({', '.join(f'{c} {r.values[c]}' for c in columns)})" for r in found[:2]]
        hint = "more of the table's columns in `columns` or `where`"
        return expected(where, "one row of the table", Quoted(" and ".join(rows)), hint)


def lookup(config: Mapping[str, Any], dotted: str) -> tuple[bool, Any]:
    """Whether a configuration has the field ``a.b.c``, and its value."""
    value: Any = config
    for key in dotted.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return False, None
        value = value[key]
    return True, value


def same(ours: Any, theirs: Any) -> bool:
    """Whether two values of a configuration say the same: numbers by value, a size as that along each axis."""
    a, b = ("" if v is None else flat(v) for v in (ours, theirs))
    try:
        return abs(float(a) - float(b)) <= 1e-9 * max(abs(float(a)), abs(float(b)))
    except ValueError:
        return a == b
