"""Checkpoint files: opened without running what they hold, and unwrapped."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixlab.errors import Quoted, UserError, expected

WRAPPERS = ("model_ema", "state_dict_ema", "ema_state_dict", "state_dict", "model", "net", "module")
"""Entries that hold a state dict in published files, best first: averaged weights are the ones that papers report."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""What DataParallel, torch.compile and Lightning put before every key."""


@dataclass(frozen=True)
class Checkpoint:
    """A state dict and where in its file it lay."""

    state: dict[str, Tensor]
    path: Path
    entry: str
    """Names of the wrappers that were opened, joined by dots; empty for a plain state dict."""
    others: tuple[str, ...]
    """Further state dicts in the file that were not taken."""

    @property
    def source(self) -> str:
        entry = f" ({self.entry})" if self.entry else ""
        return f"{self.path.name}{entry}" + (f", not {' nor '.join(self.others)}" if self.others else "")


def open_checkpoint(path: str | PathLike[str], *, entry: str | None = None) -> Checkpoint:
    """Read a checkpoint file (``torch.save`` or ``.safetensors``) on the CPU.

    Args:
        path: the file.
        entry: which entry holds the weights, where a file holds several; by default the averaged ones.

    Raises:
        UserError: there is no such file, its pickle needs more than tensors and plain values (it is then not opened: it
            could run any code), it holds no state dict, or not the ``entry``.
    """
    file = Path(path)
    if not file.is_file():
        raise expected("weights", "a checkpoint file", str(path), "the path of a file that you downloaded")
    content = _read(file)
    names: list[str] = []
    others: tuple[str, ...] = ()
    if entry is not None:
        if not isinstance(content, Mapping) or entry not in content:
            raise expected(f"weights {file.name}", f"an entry of the file ({', '.join(_names(content))})", entry)
        names, content = [entry], content[entry]
    while not _is_state(content):
        held = [k for k in WRAPPERS if isinstance(content, Mapping) and isinstance(content.get(k), Mapping)]
        if not held:
            raise expected(f"weights {file.name}", f"a state dict, alone or in {', '.join(WRAPPERS)}", _names(content))
        names.append(held[0])
        others += tuple(held[1:])
        content = content[held[0]]
    state = {str(k): v for k, v in content.items()}
    while shared := [p for p in PREFIXES if all(k.startswith(p) for k in state)]:
        state = {k.removeprefix(shared[0]): v for k, v in state.items()}
    return Checkpoint(state, file, ".".join(names), others)


def _names(content: Any) -> list[str]:
    """What a file holds, for messages."""
    return sorted(map(str, content)) if isinstance(content, Mapping) else [type(content).__name__]


def _read(file: Path) -> Any:
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        needs = re.search(r"GLOBAL (\S+)", str(error))
        if needs is None:
            raise _no_checkpoint(file) from None
        got = f"one whose pickle needs {needs[1]}"
        hint = "to save its state dict alone, where you trust the file: opening a pickle can run any code"
        where = f"weights {file.name}"
        raise expected(where, "a file of tensors and plain values", Quoted(got), hint) from None
    except (RuntimeError, EOFError, LookupError, ValueError, AttributeError) as error:  # as torch meets other bytes
        raise _no_checkpoint(file) from error


def _no_checkpoint(file: Path) -> UserError:
    got = Quoted("another kind of file, or a part of one" if file.stat().st_size else "an empty file")
    return expected(f"weights {file.name}", "a file written by torch.save", got)


def _read_safetensors(file: Path) -> Any:
    try:
        from safetensors import SafetensorError  # torch's own formats need no such package
        from safetensors.torch import load_file
    except ImportError:
        raise expected(f"weights {file.name}", "the package safetensors", None, "pip install safetensors") from None
    try:
        return load_file(file)
    except SafetensorError as error:
        raise expected(f"weights {file.name}", "a safetensors file", Quoted(str(error))) from None


def _is_state(content: Any) -> bool:
    return isinstance(content, Mapping) and len(content) > 0 and all(isinstance(v, Tensor) for v in content.values())
