"""Checkpoint files: opened without running what they hold, and unwrapped."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixlab.errors import Quoted, expected

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
            could run any code), or it holds no state dict.
    """
    file = Path(path)
    if not file.is_file():
        raise expected("weights", "a checkpoint file", str(path), "the path of a file that you downloaded")
    content = _read(file)
    names: list[str] = []
    others: tuple[str, ...] = ()
    while not _is_state(content):
        held = [k for k in WRAPPERS if isinstance(content, Mapping) and isinstance(content.get(k), Mapping)]
        if entry is not None and isinstance(content, Mapping) and entry in content:
            held, entry = [entry, *(k for k in held if k != entry)], None
        if not held:
            kinds = sorted(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
            raise expected(f"weights {file.name}", f"a state dict, alone or in {', '.join(WRAPPERS)}", kinds)
        names.append(held[0])
        others += tuple(held[1:])
        content = content[held[0]]
    state = {str(k): v for k, v in content.items()}
    for prefix in PREFIXES:
        if all(k.startswith(prefix) for k in state):
            state = {k.removeprefix(prefix): v for k, v in state.items()}
    return Checkpoint(state, file, ".".join(names), others)


def _read(file: Path) -> Any:
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file  # torch's checkpoint formats need no such package

        return load_file(file)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0] if "Unsupported" not in str(error) else _named(str(error))
        raise expected(
            f"weights {file.name}",
            "a file of tensors and plain values (weights_only)",
            Quoted(reason),
            "to save its state dict alone, on a machine where you trust the file",
        ) from None
    except (RuntimeError, EOFError) as error:
        raise expected(f"weights {file.name}", "a file written by torch.save", Quoted(str(error).split("\n")[0])) from None


def _named(message: str) -> str:
    """The class that a refused pickle asks for, out of torch's long message."""
    lines = [line.strip() for line in message.splitlines() if "GLOBAL" in line or "Unsupported" in line]
    return lines[0] if lines else message.splitlines()[0]


def _is_state(content: Any) -> bool:
    return (
        isinstance(content, Mapping) and len(content) > 0 and all(isinstance(v, Tensor) for v in content.values())
    )
