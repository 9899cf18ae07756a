"""Command-line options made from the configuration dataclasses, with short names for the frequent ones."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from mixlab.errors import expected, nearest
from mixlab.studies.configuration import argument_error

#: Short option -> field. Every field can also be set by its full name, such as --recipe.learning_rate.
SHORT = {
    "--data": "data.name",
    "--data-root": "data.root",
    "--download": "data.download",
    "--image-size": "data.image_size",
    "--train-per-class": "data.train_per_class",
    "--folds": "data.folds",
    "--model": "model.name",
    "--mixer": "model.token_mixer",
    "--kernel-size": "model.kernel_size",
    "--recipe": "recipe.preset",
    "--epochs": "recipe.epochs",
    "--batch-size": "recipe.batch_size",
    "--import": "imports",
}


def make_parser(command: str, description: str, words: str = "") -> ArgumentParser:
    """A parser for one command; ``words`` shows its positional arguments."""
    usage = " ".join(filter(None, ["mixlab", command, words, "[options]"]))
    return ArgumentParser(
        prog=f"mixlab {command}", usage=usage, description=description, exit_on_error=False, allow_abbrev=False
    )


def add_fields(
    parser: ArgumentParser, cls: Any, prefix: str = "", title: str = "options", without: Collection[str] = ()
) -> None:
    """Add an option for every field of a dataclass but those ``without``, nested ones by their dotted name."""
    from docstring_parser import parse_from_object

    hints = typing.get_type_hints(cls)
    texts = {p.arg_name: " ".join((p.description or "").split()) for p in parse_from_object(cls).params}
    group = parser.add_argument_group(prefix or title)
    nested = []
    if cls.__name__ == "Recipe":
        preset = "Recipe to start from: study (the defaults below), short, segmentation or segmentation-short."
        preset += " Short form: --recipe."
        group.add_argument(f"--{prefix}.preset", type=str, default="study", help=preset, metavar="PRESET")
    for field in dataclasses.fields(cls):
        if field.name in without:
            continue
        key = f"{prefix}.{field.name}" if prefix else field.name
        inner = _dataclass_in(hints[field.name])
        if inner is not None:
            nested.append((inner, key))
            continue
        shorts = [short for short, full in SHORT.items() if full == key]
        text = texts.get(field.name, "") + (f" Short form: {shorts[0]}." if shorts else "")
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        default = None if default is dataclasses.MISSING else default
        hint = text.replace("%", "%%").replace("`", "")
        name = f"--{key}"
        group.add_argument(name, type=hints[field.name], default=default, help=hint, metavar=field.name.upper())
    for inner, key in nested:
        add_fields(parser, inner, key)


def parse(parser: ArgumentParser, words: Sequence[str]) -> dict[str, Any]:
    """The options that were given, as nested plain values.

    Raises:
        UserError: an unknown option (with the nearest) or a value of the wrong type.
    """
    try:
        found = parser.parse_args(_spelled_out(parser, words), defaults=False)
    except ArgumentError as error:
        raise _readable(parser, str(error)) from None
    return found.as_dict()


def _spelled_out(parser: ArgumentParser, words: Sequence[str]) -> list[str]:
    """Options in the form that jsonargparse reads: full names, ``[a,b]`` for lists, a value for every switch.

    Lists may be written ``a,b``, or one by one with the option repeated.
    """
    typed = [(action, getattr(action, "_typehint", None)) for action in parser._actions]
    hints = {name: hint for action, hint in typed if hint is not None for name in action.option_strings}
    rest = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    found: list[str] = []
    lists: dict[str, list[str]] = {}
    while rest:
        word = rest.pop(0)
        name = _full_name(word, hints)
        hint = hints.get(name)
        if hint is bool and (not rest or rest[0].lower() not in ("true", "false")):
            found += [name, "true"]
        elif hint is not None and rest and _takes_list(hint) and not rest[0].startswith(("[", "{")):
            lists.setdefault(name, []).append(rest.pop(0))
        else:
            found.append(name)
    for name, values in lists.items():
        text = ",".join(values)
        only_list = typing.get_origin(hints[name]) is list
        found += [name, f"[{text}]" if only_list or "," in text else text]
    return found


def _full_name(word: str, known: Mapping[str, Any]) -> str:
    """``--data-root`` and ``--kernel-sizes`` as ``--data.root`` and ``--kernel_sizes``."""
    if not word.startswith("--") or word in known:
        return word
    if f"--{SHORT.get(word, '')}" in known:
        return f"--{SHORT[word]}"
    under = f"--{word[2:].replace('-', '_')}"
    return under if under in known else word


def _takes_list(hint: Any) -> bool:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_takes_list(h) for h in typing.get_args(hint))
    return typing.get_origin(hint) in (list, tuple) or hint is Any


def _dataclass_in(hint: Any) -> Any:
    """The dataclass that a hint names, also as ``list[...]`` or optional."""
    if dataclasses.is_dataclass(hint):
        return hint
    return next((d for h in typing.get_args(hint) if (d := _dataclass_in(h)) is not None), None)


def _readable(parser: ArgumentParser, message: str) -> Exception:
    if "unrecognized arguments" in message.lower():
        wrong = message.split(":", 1)[1].split()[0]
        known = [name for action in parser._actions for name in action.option_strings]
        known += [short for short, full in SHORT.items() if f"--{full}" in known]
        close = nearest(wrong, known)
        hint = " or ".join(close) if close else f"`{parser.prog} --help`"
        return expected(f"unknown option of {parser.prog}", "one that the command has", wrong, hint)
    return argument_error(message, parser.prog)
