"""Published configurations, one file a paper. A file in this folder registers its names by being here."""

from __future__ import annotations

import importlib
import pkgutil

from mixlab.architectures.base import (
    ARCHITECTURES,
    Architecture,
    OfficialNames,
    Published,
    official_names,
    published,
    register_architecture,
)

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "OfficialNames",
    "Published",
    "official_names",
    "published",
    "register_architecture",
]
