"""Example test images with what each label predicted, mistakes first."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixlab.studies.case_metrics import Predictions
from mixlab.studies.report.collect import RunRecord
from mixlab.studies.report.summary import LabelSummary, StudySummary


@dataclass(frozen=True)
class Answer:
    """What one label says of an image: classes by the mean probability of its runs, and how many runs were right."""

    label: str
    said: str
    right: bool
    probability: float | None
    runs_right: int
    runs: int

    @property
    def divided(self) -> bool:
        """Whether the runs of the label do not agree."""
        return 0 < self.runs_right < self.runs


@dataclass(frozen=True)
class Example:
    """A test image with its truth and every label's answer."""

    case: str
    image: str
    truth: str
    answers: list[Answer]

    @property
    def mistakes(self) -> int:
        """How many labels are wrong."""
        return sum(not answer.right for answer in self.answers)


def png_uri(image: NDArray[np.uint8]) -> str:
    """An image ``(H, W)`` or ``(H, W, 3)`` as a ``data:`` URI."""
    from PIL import Image

    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def collect_examples(summary: StudySummary, most: int = 24) -> list[Example]:
    """The kept images of the study's runs, those with most mistakes first."""
    images: dict[str, NDArray[np.uint8]] = {}
    for run in summary.study.finished:
        kept = run.examples()
        for image, case in zip(kept[0], kept[1], strict=True) if kept is not None else ():
            images.setdefault(case, image)
        if len(images) >= most:
            break
    ranked = [label for label in summary.labels if label.runs]
    made = [_example(case, images[case], ranked, summary.study.classes) for case in list(images)[:most]]
    return sorted((e for e in made if e is not None), key=lambda e: -e.mistakes)


def _example(case: str, image: NDArray[np.uint8], labels: list[LabelSummary], classes: list[str]) -> Example | None:
    truth, answers = "", []
    for label in labels:
        found = [f for run in label.runs if (f := _find(run, case)) is not None]
        if not found:
            continue
        target = found[0][0]
        truth = _names(target, classes)
        mean = np.mean([p for _, p in found], axis=0)
        said = _decide(mean, target)
        right = sum(np.array_equal(_decide(p, target), target) for _, p in found)
        sure = float(mean.max()) if target.ndim == 0 else None
        good = bool(np.array_equal(said, target))
        text = _names(said, classes) if good or target.ndim == 0 else _mistakes(said, target, classes)
        answers.append(Answer(label.label, text, good, sure, right, len(found)))
    return Example(case, png_uri(image), truth, answers) if answers else None


def _find(run: RunRecord, case: str) -> tuple[NDArray[np.generic], NDArray[np.float64]] | None:
    predictions = run.predictions("test")
    if not isinstance(predictions, Predictions):
        return None
    place = np.flatnonzero(predictions.ids == case)
    if not len(place):
        return None
    return np.asarray(predictions.targets[place[0]]), predictions.probabilities[place[0]]


def _decide(probabilities: NDArray[np.float64], target: NDArray[np.generic]) -> NDArray[np.generic]:
    """The predicted class, or the classes of at least 0.5 where the target is a vector."""
    return np.asarray(probabilities.argmax()) if target.ndim == 0 else (probabilities >= 0.5).astype(target.dtype)


def _names(target: NDArray[np.generic], classes: list[str]) -> str:
    chosen = [int(target)] if target.ndim == 0 else [int(k) for k in np.flatnonzero(target)]
    return ", ".join(classes[k] if k < len(classes) else str(k) for k in chosen) or "none"


def _mistakes(said: NDArray[np.generic], target: NDArray[np.generic], classes: list[str]) -> str:
    """Where an answer of several classes differs from the truth."""
    is_true, is_said = target.astype(np.int64), said.astype(np.int64)
    missed, added = np.maximum(is_true - is_said, 0), np.maximum(is_said - is_true, 0)
    parts = [("missed", missed), ("added", added)]
    return "; ".join(f"{word} {_names(part, classes)}" for word, part in parts if part.any())
