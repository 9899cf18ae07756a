"""Token mixers: one file each. A file in this folder registers itself by being here."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import torch

from mixlab.errors import UserError
from mixlab.mixers.base import MIXERS, Includes, Mixer, register_mixer
from mixlab.registry import Part

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


WIDTH, GRID = 96, 14  # a width that every usual head size divides


def mixer_info(name: str, **options: Any) -> dict[str, Any]:
    """What a mixer includes, its options with defaults, and the first line of its documentation.

    Args:
        name: a mixer of the registry.
        options: options of the mixer that are not at their default, as what it includes may depend on them.

    Returns:
        ``name``, ``summary``, ``options``, the fields of :class:`Includes`, and ``bias``: it adds learned constants, so
        that a map of zeros does not stay one; None for a mixer that cannot be built with 96 channels and its defaults.
    """
    mixer: Any = MIXERS[name]
    built = _built(name, options)
    known = {k: None if p.default is p.empty else p.default for k, p in MIXERS.options(name).items()}
    summary = (mixer.__doc__ or "").strip().split("\n")[0]
    includes: Includes = (built or mixer).includes
    facts = {**includes.to_dict(), "bias": None if built is None else _has_bias(built)}
    if "subtract_input" in known:
        facts["subtracts_input"] = bool(options.get("subtract_input", known["subtract_input"]))
    return {"name": name, "summary": summary, "options": known, **{fact: facts[fact] for fact in FACTS}}


FACTS = ("subtracts_input", "projections", "mixes_channels", "bias", "learned", "position", "reach")
"""What :func:`mixer_info` says of what a mixer includes, in the order of tables."""


def _built(name: str, options: dict[str, Any]) -> Mixer | None:
    """The mixer with these options, without memory; None if it cannot be built with 96 channels, or not without options
    that only its user knows."""
    if any(p.default is p.empty and option not in options for option, p in MIXERS.options(name).items()):
        return None
    grid = {"grid_size": (GRID, GRID)} if MIXERS[name].needs_grid else {}  # type: ignore[attr-defined]
    try:
        with torch.device("meta"):  # no memory, no random numbers
            return MIXERS.build(Part(name, options), WIDTH, spatial_dims=2, **grid)
    except UserError:
        return None


def _has_bias(mixer: Mixer) -> bool:
    return any(key.rpartition(".")[2] == "bias" for key, _ in mixer.named_parameters())


__all__ = ["FACTS", "MIXERS", "Includes", "Mixer", "mixer_info", "register_mixer"]
