"""Sources of data sets, one a file; a name such as ``digits`` or ``medmnist:bloodmnist@64`` chooses one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import TypeVar

from mixlab.data.card import DataCard
from mixlab.data.config import DataConfig
from mixlab.data.raw import RawData
from mixlab.errors import expected, nearest, unknown

OpenSource = Callable[[DataConfig, str], RawData]
Describe = Callable[[str], DataCard]
AtHand = Callable[[DataConfig, str], bool]
F = TypeVar("F", bound=OpenSource)

BUILT_IN = (
    "digits", "mni152", "medmnist", "folder", "csv", "npz", "imagewoof", "grazpedwri",
    "grazpedwri_bones", "jsrt", "decathlon", "tiger", "stand_in",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """How the sets of one kind are opened and listed."""

    name: str
    open: OpenSource
    pattern: str = ""
    """How names of the source look when they take an argument: ``folder:PATH``."""
    names: Callable[[], Iterable[str]] | None = None
    """All complete names, when they can be listed."""
    describe: Describe | None = None
    """The card without the data, from the argument."""
    at_hand: AtHand | None = None
    """Whether the set's files are there, without reading them; None for sets that need none."""
    listed: bool = True
    """Whether users choose it; else it is found by its name alone."""


_SOURCES: dict[str, Source] = {}


def register_dataset(
    name: str,
    *,
    pattern: str = "",
    names: Callable[[], Iterable[str]] | None = None,
    describe: Describe | None = None,
    at_hand: AtHand | None = None,
    listed: bool = True,
) -> Callable[[F], F]:
    """Decorator that adds a data set (or a kind of them) under ``name``.

    The function takes the :class:`~mixlab.data.DataConfig` and what stands after the colon in the set's name, and
    returns :class:`~mixlab.data.RawData`. In a file of your own, loaded with ``--import my_data.py``::

        @register_dataset("stripes")
        def stripes(config: DataConfig, argument: str) -> RawData:
            pixels, labels = ...  # uint8 (N, H, W) and integers (N,)
            ids = [f"case-{i}" for i in range(len(labels))]
            return RawData(name="stripes", task="classification", classes=("rows", "columns"),
                           images=ArrayImages([pixels]), targets=labels, ids=ids)

    Args:
        name: what users write, or what they write before the colon.
        pattern: how names look when the source takes an argument, for ``mixlab list``.
        names: function that lists all complete names.
        describe: function from the argument to a card without data.
        at_hand: function that says whether the set's files are there, see :func:`mixlab.data.at_hand`.
        listed: whether ``mixlab list datasets`` shows it.

    Raises:
        UserError: the name has a colon, or another function has it.
    """

    if ":" in name:
        raise expected("register_dataset", "a name without a colon", name)

    def add(function: F) -> F:
        taken = _SOURCES.get(name)
        if taken is not None and _origin(taken.open) != _origin(function):
            raise expected("register_dataset", "a free name", name, f"another name; {_origin(taken.open)} has this one")
        _SOURCES[name] = Source(name, function, pattern, names, describe, at_hand, listed)
        return function

    return add


def _origin(function: OpenSource) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def sources() -> dict[str, Source]:
    """All sources by name."""
    for module in BUILT_IN:
        import_module(f"mixlab.data.sources.{module}")
    return _SOURCES


def find_source(name: str) -> tuple[Source, str]:
    """The source of a data set's name, and the argument after the colon.

    Raises:
        UserError: no source has that name (the nearest ones are named), or it takes no argument.
    """
    kind, colon, argument = name.partition(":")
    known = sources()
    if kind not in known:
        names, kinds = list_datasets(), [s.pattern or s.name for s in known.values() if s.listed]
        # the sets of MedMNIST are listed only when one of them is near
        raise unknown("data set", name, names if nearest(name, names) else kinds)
    source = known[kind]
    if colon and not source.pattern:
        raise expected(f"data set {kind!r}", "a name without a colon", name, repr(kind))
    return source, argument


def list_datasets() -> list[str]:
    """Names of the data sets, and the patterns of those that take an argument."""
    found = []
    for source in filter(lambda s: s.listed, sources().values()):
        found += [source.pattern] if source.pattern else []
        found += list(source.names()) if source.names else [] if source.pattern else [source.name]
    return sorted(found)


def describe(name: str) -> DataCard:
    """The card of a published set without opening it: no sizes of splits, no statistics.

    Raises:
        UserError: the name is unknown, or its card is known only from the data (``folder``, ``csv``, ``npz``).
    """
    source, argument = find_source(name)
    if source.describe is None:
        raise expected(f"card of {name}", "a published data set", name, "opening it: its card is made from its files")
    return source.describe(argument)
