"""One run as the report sees it: what its folder says, and its arrays, which are read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mixlab.studies.case_metrics import AnyPredictions
from mixlab.studies.report.arrays import (
    UNREADABLE,
    MaskExample,
    read_images,
    read_mask_examples,
    read_predictions,
)

Json = dict[str, Any]
Found = TypeVar("Found")


@dataclass(eq=False)
class RunRecord:
    """All that one run folder says. Missing files are empty values; ``problems`` names those that cannot be read."""

    folder: Path
    label: str
    seed: int
    fold: int | None
    state: str
    config: Json
    environment: Json
    status: Json
    summary: Json
    card: Json
    history: list[Json]
    problems: list[str] = field(default_factory=list)
    _arrays: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def finished(self) -> bool:
        """Whether the run ended well and has results."""
        return self.state == "finished" and bool(self.summary)

    @property
    def mixer(self) -> str:
        """The token mixer's name; the label where the run does not say."""
        model = self.config.get("model")
        mixer = self.summary.get("mixer") or (model.get("token_mixer") if isinstance(model, dict) else None)
        return mixer if isinstance(mixer, str) else self.label

    @property
    def data(self) -> str:
        """The data set's name, as the run was told it; scores on different ones are never compared."""
        data = self.config.get("data")
        return str((data.get("name") if isinstance(data, dict) else None) or self.card.get("name") or "")

    def score(self, split: str, metric: str) -> float | None:
        """A number of ``summary.json``, for instance ``score("test", "macro_f1")``; None where there is none."""
        return number((self.summary.get(split) or {}).get(metric))

    def value(self, key: str) -> float | None:
        """A number of the top level of ``summary.json``, for instance ``value("parameters")``."""
        return number(self.summary.get(key))

    def events(self) -> list[Json]:
        """The recorded events, each with ``kind`` and ``message``."""
        return [e if isinstance(e, dict) else {"kind": "event", "message": e} for e in self.summary.get("events") or []]

    def predictions(self, split: str) -> AnyPredictions | None:
        """The predictions on ``split`` (read once); None, and a problem, where they cannot be read."""
        if split not in self._arrays:
            self._arrays[split] = self._load(f"predictions_{split}.npz", read_predictions)
        found: AnyPredictions | None = self._arrays[split]
        return found

    def examples(self) -> tuple[NDArray[np.uint8], list[str]] | None:
        """The kept test images ``(N, H, W[, 3])`` of a classification run and their case ids."""
        return self._load("examples.npz", read_images)

    def mask_examples(self) -> list[MaskExample]:
        """The kept test cases of a segmentation run; none, and a problem, where they cannot be read."""
        return self._load("examples.npz", read_mask_examples) or []

    def _load(self, file: str, read: Callable[[Path], Found]) -> Found | None:
        path = self.folder / file
        if not path.exists():
            return None
        try:
            return read(path)
        except UNREADABLE as error:
            self._problem(f"{file} cannot be read: {error}")
            return None

    def _problem(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)


def number(value: object) -> float | None:
    """``value`` as a float; None if it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if np.isfinite(value) else None
