"""How far a study is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixlab.studies.run_folder import run_folders


@dataclass(frozen=True)
class RunStatus:
    """A run's state: epochs done of all, best validation macro F1 so far, and what went wrong."""

    name: str
    state: str
    epoch: int
    epochs: int | None
    best: dict[str, Any] | None
    message: str


def study_status(folder: Path) -> list[RunStatus]:
    """The runs of a study folder by name; runs whose process was killed show as interrupted.

    Raises:
        UserError: there is no study in the folder.
    """
    found = []
    for run in run_folders(folder):
        status = run.status()
        epoch, epochs = int(status.get("epoch") or 0), status.get("epochs")
        message = str(status.get("message") or "")
        found.append(RunStatus(run.name, run.state(), epoch, epochs, status.get("best"), message))
    return found
