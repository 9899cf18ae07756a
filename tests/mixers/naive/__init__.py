"""Every mixer once more, position by position in plain Python, with every multiply counted.

A twin shares no formula and no code with the package. Maps are numpy arrays ``(C, *spatial)``, weights the module's
own. Each file of this folder has ``NAIVE`` (mixer to twin) and ``OPTIONS`` (mixer to options that make it small); both
are collected here.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

from tests.mixers.naive.base import Array, Counter

NAIVE: dict[str, Callable[[Any, Array, Counter], Array]] = {}
OPTIONS: dict[str, dict[str, Any]] = {}
for _found in pkgutil.iter_modules(__path__):
    if _found.name != "base":
        _module = importlib.import_module(f"{__name__}.{_found.name}")
        NAIVE |= _module.NAIVE
        OPTIONS |= _module.OPTIONS
