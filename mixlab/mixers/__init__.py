"""Token mixers: one file each. A file in this folder registers itself by being here."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from mixlab.mixers.base import MIXERS, Includes, Mixer, register_mixer

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def mixer_info(name: str) -> dict[str, Any]:
    """What a mixer includes, its options with defaults, and the first line of its documentation."""
    mixer: Any = MIXERS[name]
    options = {k: None if p.default is p.empty else p.default for k, p in MIXERS.options(name).items()}
    summary = (mixer.__doc__ or "").strip().split("\n")[0]
    return {"name": name, "summary": summary, "options": options, **mixer.includes.to_dict()}


__all__ = ["MIXERS", "Includes", "Mixer", "mixer_info", "register_mixer"]
