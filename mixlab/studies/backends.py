"""What computed a run's local attention: which backend took which problem, and how it was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def describe_choices() -> list[dict[str, Any]]:
    """The choices of this process so far, for ``environment.json``, one entry a kind of problem.

    Entries have ``problem``, ``computed_by`` (``native (avx512)``, ``pure, dense``), ``asked`` (the backend asked for),
    ``because`` and ``not`` (why no other). The batch, the number of heads and options are left out, as few choices
    depend on them; where one does, there is an entry for each.
    """
    from mixlab.ops.local_attention_choice import choices_made

    found: dict[str, dict[str, Any]] = {}
    for asked, choice in choices_made().items():
        size, kernel = " x ".join(map(str, asked.shape[3:])), " x ".join(map(str, asked.window.kernel))
        dtype = str(asked.dtype).removeprefix("torch.")
        about = [size, f"window {kernel}", f"head size {asked.shape[2]}", f"{dtype} on {asked.device}"]
        entry = {
            "problem": ", ".join(about), "computed_by": computed_by(choice), "asked": asked.backend,
            "because": choice.reason, "not": dict(choice.others),
        }  # fmt: skip
        found[str(entry)] = entry
    return list(found.values())


def computed_by(choice: Any) -> str:
    """``native (avx512)``, ``pure, dense``: backend, and instruction set or path."""
    if choice.backend == "native":
        from mixlab.ops.local_attention_native import instruction_set

        return f"native ({instruction_set()})"
    return choice.backend if choice.path == choice.backend else f"{choice.backend}, {choice.path}"


def fallback_events(choices: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """An event where local attention had to do without the native kernel because it is not installed."""
    from mixlab.ops.local_attention_choice import backend_status

    reason = backend_status().get("native")
    if reason is None or not any(choice["not"].get("native") == reason for choice in choices):
        return []
    return [{"kind": "backend", "message": f"local attention computed in plain PyTorch: {reason}"}]


def choices_text(choices: object) -> str:
    """Recorded choices in one line, ``native (avx512): 14 x 14, 7 x 7; pure, dense: 4 x 4``; for the report."""
    sizes: dict[str, dict[str, None]] = {}
    for entry in choices if isinstance(choices, list) else []:
        size = str(entry.get("problem", "")).partition(",")[0]
        sizes.setdefault(str(entry.get("computed_by", "?")), {})[size] = None
    return "; ".join(f"{name}: {', '.join(found)}" for name, found in sizes.items()) or "not used"
