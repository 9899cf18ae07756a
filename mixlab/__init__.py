"""mixlab: which token mixer should I train on my images, at what kernel size, from which weights, at what cost?

The names below are loaded when they are first used, so that ``import mixlab`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixlab.architectures import register_architecture
    from mixlab.channel_mixers import ChannelMixer, register_channel_mixer
    from mixlab.data import list_datasets
    from mixlab.errors import UserError
    from mixlab.mixers import Mixer, mixer_info, register_mixer
    from mixlab.models import create_model, list_models, model_info

__version__ = version("mixlab")

_HOMES = {
    "ChannelMixer": "mixlab.channel_mixers",
    "Mixer": "mixlab.mixers",
    "UserError": "mixlab.errors",
    "create_model": "mixlab.models",
    "list_datasets": "mixlab.data",
    "list_models": "mixlab.models",
    "mixer_info": "mixlab.mixers",
    "model_info": "mixlab.models",
    "register_architecture": "mixlab.architectures",
    "register_channel_mixer": "mixlab.channel_mixers",
    "register_mixer": "mixlab.mixers",
}


def list_mixers() -> list[str]:
    """Names of the token mixers."""
    return list(import_module("mixlab.mixers").MIXERS)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mixlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "ChannelMixer",
    "Mixer",
    "UserError",
    "create_model",
    "list_datasets",
    "list_mixers",
    "list_models",
    "mixer_info",
    "model_info",
    "register_architecture",
    "register_channel_mixer",
    "register_mixer",
]
