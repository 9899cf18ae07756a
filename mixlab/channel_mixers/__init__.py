"""Channel mixers: one file each. A file in this folder registers itself by being here."""

from __future__ import annotations

import importlib
import pkgutil

from mixlab.channel_mixers.base import CHANNEL_MIXERS, ChannelMixer, register_channel_mixer

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["CHANNEL_MIXERS", "ChannelMixer", "register_channel_mixer"]
