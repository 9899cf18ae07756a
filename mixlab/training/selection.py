"""Which validation metric chooses the best epoch; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

#: By the data set's task.
SELECTS: Final = {"classification": "macro_f1", "multilabel": "macro_f1", "segmentation": "dice"}
#: How they are written.
WRITTEN: Final = {"macro_f1": "macro F1", "dice": "Dice"}


def told(metrics: Mapping[str, Any], prefix: str = "") -> str:
    """The selecting metric among ``metrics``, as ``macro F1 0.812``; keys may begin with ``prefix``."""
    for key, name in WRITTEN.items():
        if prefix + key in metrics:
            value = metrics[prefix + key]
            return f"{name} undefined" if value is None else f"{name} {value:.3f}"
    return ""
