"""Studies: a grid of runs, their folders, what they say together, and the report."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixlab.studies.grid import StudyConfig
    from mixlab.studies.run_config import RunConfig
    from mixlab.studies.study import Resources, StudyResult, run_study

# Loaded when first used: the report reads run folders without torch.
_HOMES = {
    "Resources": "mixlab.studies.study",
    "RunConfig": "mixlab.studies.run_config",
    "StudyConfig": "mixlab.studies.grid",
    "StudyResult": "mixlab.studies.study",
    "run_study": "mixlab.studies.study",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mixlab.studies' has no attribute {name!r}")


__all__ = ["Resources", "RunConfig", "StudyConfig", "StudyResult", "run_study"]
