"""Dataclasses from plain values (YAML, command line) and back.

jsonargparse checks types and reads numbers; this module adds unknown keys by their nearest name and error messages in
the project's form.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mixlab.errors import Quoted, UserError, expected, unknown
from mixlab.registry import Part

T = TypeVar("T")


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        UserError: the file is missing, is no YAML or holds something else.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise expected(str(path), "a readable file", Quoted(error.strerror or str(error))) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise expected(str(path), "YAML", Quoted(" ".join(str(error).split()))) from None
    if not isinstance(content, dict):
        raise expected(str(path), "a YAML mapping of keys to values", type(content).__name__)
    return content


def dump_yaml(value: Mapping[str, Any]) -> str:
    """Plain values as YAML, keys in their own order."""
    import yaml

    return yaml.safe_dump(to_plain(value), sort_keys=False, allow_unicode=True)


def to_plain(value: Any) -> Any:
    """Dataclasses, parts, paths and tuples as plain values that YAML and JSON can write."""
    if isinstance(value, Part):
        return to_plain(value.to_plain())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def changed_fields(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults, as plain values, nested dataclasses likewise.

    A new field with a default therefore changes nothing in what is made of this, such as hashes.
    """
    changed = {}
    for field in dataclasses.fields(value):
        own = getattr(value, field.name)
        if field.default is not dataclasses.MISSING:
            default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        else:
            default = dataclasses.MISSING
        if default is not dataclasses.MISSING and to_plain(own) == to_plain(default):
            continue
        nested = dataclasses.is_dataclass(own) and not isinstance(own, Part | type)
        changed[field.name] = changed_fields(own) if nested else to_plain(own)
    return changed


def build(cls: type[T], plain: Mapping[str, Any], where: str) -> T:
    """Make a dataclass from plain values.

    Args:
        cls: the dataclass.
        plain: values by field name; fields with defaults may be missing.
        where: what errors call it, e.g. ``study file my.yaml``.

    Raises:
        UserError: an unknown key (with the nearest), a wrong type, or what the dataclass itself refuses.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    check_keys(cls, plain, where)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls)
    try:
        values = parser.parse_object(to_plain(plain))
    except ArgumentError as error:
        raise argument_error(str(error), where) from None
    return _construct(cls, values.as_dict())


def merge(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values where ``more`` wins; a list of mappings in ``base`` takes ``more`` into each of them."""
    merged = dict(base)
    for key, value in more.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, str):
            old = {"preset" if key == "recipe" else "name": old}
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            merged[key] = merge(old, value)
        elif isinstance(value, Mapping) and isinstance(old, list):
            merged[key] = [merge({"name": o} if isinstance(o, str) else o, value) for o in old]
        else:
            merged[key] = value
    return merged


def check_keys(cls: Any, plain: Mapping[str, Any], where: str) -> None:
    """Raise for the first key, at any depth, that is no field of the dataclass."""
    hints = typing.get_type_hints(cls)
    for key, value in plain.items():
        if key not in hints or key not in {f.name for f in dataclasses.fields(cls)}:
            raise unknown(f"key in {where}", str(key), [f.name for f in dataclasses.fields(cls)])
        for inner in _dataclasses_in(hints[key]):
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, Mapping):
                    check_keys(inner, item, f"{where}, {key}")


def argument_error(message: str, where: str) -> UserError:
    """A UserError from a message of jsonargparse."""
    text = " ".join(message.split())
    match = re.search(r'Parser key "([^"]+)":\s*(.*)', text)
    if match is None:
        return UserError(f"{where}: {text}")
    key, reason = match.groups()
    got = re.search(r"Got value: (.*)$", reason)
    want = re.search(r"Expected an? (?:<class '(\w+)'>|(.*?))\.", reason)
    if want and got:
        return expected(f"{where}, {key}", want.group(1) or want.group(2), Quoted(got.group(1)))
    return UserError(f"{where}, {key}: {reason}")


def _construct(cls: type[T], values: Mapping[str, Any]) -> T:
    """Make the dataclass and those inside it, without the parser's wrapping of errors."""
    hints = typing.get_type_hints(cls)
    made = {}
    for key, value in values.items():
        for inner in _dataclasses_in(hints[key]):
            if isinstance(value, Mapping):
                value = _construct(inner, value)
            elif isinstance(value, list):
                value = [_construct(inner, v) if isinstance(v, Mapping) else v for v in value]
        made[key] = value
    return cls(**made)


def _dataclasses_in(hint: Any) -> Iterator[type]:
    """The dataclasses that a type hint names: itself, in a union, or as items of a list."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        yield hint
    elif typing.get_origin(hint) in (typing.Union, types.UnionType, list, tuple):
        for argument in typing.get_args(hint):
            yield from _dataclasses_in(argument)
