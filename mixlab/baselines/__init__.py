"""Networks that are no MetaFormers, to compare with. A file in this folder registers itself by being here."""

from __future__ import annotations

import importlib
import pkgutil

from mixlab.baselines.base import (
    BASELINES,
    Baseline,
    BaselineConfig,
    baseline_info,
    has_decoder,
    is_baseline,
    list_baselines,
    make_baseline,
    register_baseline,
)

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "BASELINES",
    "Baseline",
    "BaselineConfig",
    "baseline_info",
    "has_decoder",
    "is_baseline",
    "list_baselines",
    "make_baseline",
    "register_baseline",
]
