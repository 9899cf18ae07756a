"""Registries: a name for every exchangeable part, and parts from plain values.

A part is written as a name (``"pooling"``) or as a mapping with its options
(``{"name": "local_attention", "kernel_size": 5}``), in Python, on the command line and in YAML alike.
Parts come from this package, from a file that the user imports (``--import my_mixers.py``) or from another
installed package (entry points). Entry points are read when a name is first looked up, not at import.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from mixlab.errors import UserError, expected, nearest, unknown

T = TypeVar("T")
PartLike = "str | Mapping[str, Any] | Part"


@dataclass(frozen=True)
class Part:
    """A named part and its options: ``Part("pooling", {"kernel_size": 3})``."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, value: str | Mapping[str, Any] | Part) -> Part:
        """Read a part from a name, a mapping with ``name`` and options, or a Part."""
        if isinstance(value, Part):
            return value
        if isinstance(value, str):
            return cls(value)
        if isinstance(value, Mapping) and isinstance(value.get("name"), str):
            return cls(value["name"], {k: v for k, v in value.items() if k != "name"})
        raise expected(
            "part", "a name or a mapping with 'name' and options", value, "{'name': 'pooling', 'kernel_size': 3}"
        )

    def with_options(self, **options: Any) -> Part:
        """The same part with more options (given ones win over those already there)."""
        return Part(self.name, {**self.options, **options})

    def to_plain(self) -> str | dict[str, Any]:
        """The shortest plain value that :meth:`of` reads back, for YAML and JSON."""
        return {"name": self.name, **self.options} if self.options else self.name


class Registry(Mapping[str, Callable[..., T]], Generic[T]):
    """Classes (or factories) by name, e.g. ``MIXERS["pooling"]``."""

    def __init__(self, kind: str, entry_point_group: str | None = None) -> None:
        self.kind = kind
        self._entries: dict[str, Callable[..., T]] = {}
        self._group = entry_point_group

    def register(self, name: str) -> Callable[[Any], Any]:
        """Decorator that adds a class under ``name``; a second class under a taken name raises."""

        def add(entry: Any) -> Any:
            taken = self._entries.get(name)
            if taken is not None and _origin(taken) != _origin(entry):
                raise expected(
                    f"register {self.kind}", "a free name", name, f"another name; {_origin(taken)} has this one"
                )
            self._entries[name] = entry
            return entry

        return add

    @property
    def registered(self) -> frozenset[str]:
        """Names registered so far, without a look at entry points."""
        return frozenset(self._entries)

    def _load_entry_points(self) -> None:
        group, self._group = self._group, None
        for point in entry_points(group=group) if group else ():
            point.load()  # importing the module registers its parts

    def __getitem__(self, name: str) -> Callable[..., T]:
        self._load_entry_points()
        if name not in self._entries:
            raise unknown(self.kind, name, self._entries)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        self._load_entry_points()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._load_entry_points()
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        self._load_entry_points()
        return len(self._entries)

    def options(self, name: str) -> dict[str, inspect.Parameter]:
        """The keyword options of a part, without what the backbone itself passes."""
        parameters = inspect.signature(self[name]).parameters
        own = {"spatial_dims", "grid_size"}
        return {k: p for k, p in parameters.items() if p.kind is p.KEYWORD_ONLY and k not in own}

    def build(self, value: str | Mapping[str, Any] | Part, *args: Any, **kwargs: Any) -> T:
        """Make a part: positional and keyword arguments of the backbone first, then the part's own options.

        Raises:
            UserError: the name is unknown, or the part has no such option.
        """
        part = Part.of(value)
        factory = self[part.name]
        known = self.options(part.name)
        for option in part.options:
            if option not in known:
                close = nearest(option, known)
                hint = (
                    f"{close[0]!r}"
                    if close
                    else f"one of {sorted(known)}"
                    if known
                    else f"no option: {part.name} has none"
                )
                raise expected(f"{self.kind} {part.name!r}", "an option that it has", option, hint)
        return factory(*args, **kwargs, **part.options)


def _origin(entry: Any) -> str:
    """Where a class is defined; a file that is imported twice registers the same class again."""
    named = entry if hasattr(entry, "__qualname__") else type(entry)
    return f"{named.__module__}.{named.__qualname__}"


__all__ = ["Part", "Registry", "UserError"]
