"""Segmentation results for fake studies: blobs as structures, predictions that miss some of them; for tests only."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mixlab.training.mask_scores import MaskScores


@dataclass
class FakeMasks:
    """Masks of a fake study.

    Structures are the study's classes, but for the first where ``background`` is set. ``given`` replaces the test
    predictions of (label, seed).
    """

    background: bool = True
    overlapping: bool = False
    ignored: bool = False
    size: tuple[int, int] = (96, 80)
    spacing: float | None = None
    spread: int = 4
    extreme: int = 2
    vary: bool = False
    given: dict[tuple[str, int], MaskScores] = field(default_factory=dict)


@dataclass
class Truth:
    """The cases of a split: images ``(N, H, W)``, structures ``(N, K, H, W)``, ignored pixels ``(N, H, W)``."""

    images: np.ndarray
    planes: np.ndarray
    ignored: np.ndarray
    sizes: np.ndarray


def make_truth(rng: np.random.Generator, masks: FakeMasks, cases: int, structures: int, rgb: bool) -> Truth:
    """Blobs at a place of their own for each structure; about one in eight is absent."""
    height, width = masks.size
    y, x = np.mgrid[:height, :width]
    shape = (cases, structures, height, width)
    planes, images = np.zeros(shape, dtype=bool), np.zeros((cases, height, width))
    sizes = np.tile(np.array(masks.size), (cases, 1))
    columns = int(np.ceil(np.sqrt(structures)))
    for n in range(cases):
        if masks.vary:
            sizes[n] = height - 8 * (n % 3), width - 8 * (n % 2)
        images[n] = 70 + 30 * np.sin(x / 9 + n) + rng.normal(0, 8, (height, width))
        for k in range(structures):
            if rng.random() < 0.12:
                continue
            middle = ((k // columns + 0.5) * height / columns, (k % columns + 0.5) * width / columns)
            planes[n, k] = blob(y, x, middle, (height / columns, width / columns), rng, 1.3 if masks.overlapping else 1)
            images[n] += 60 * planes[n, k]
        if not masks.overlapping:
            planes[n] &= np.cumsum(planes[n], axis=0) == 1
        planes[n] &= (y < sizes[n, 0]) & (x < sizes[n, 1])
    ignored = np.zeros((cases, height, width), dtype=bool)
    if masks.ignored:
        ignored[:, :, : width // 6] = True
    planes &= ~ignored[:, None]
    images = np.clip(images, 0, 255).astype(np.uint8)
    return Truth(np.repeat(images[..., None], 3, axis=-1) if rgb else images, planes, ignored, sizes)


def blob(y: Any, x: Any, middle: Any, room: Any, rng: np.random.Generator, size: float) -> np.ndarray:
    """An ellipse with a wavy border, somewhere near ``middle``."""
    centre = [m + rng.normal(0, 0.08) * r for m, r in zip(middle, room, strict=True)]
    radius = [size * r * rng.uniform(0.22, 0.42) for r in room]
    down, right = (y - centre[0]) / radius[0], (x - centre[1]) / radius[1]
    return np.hypot(down, right) < 1 + 0.12 * np.sin(3 * np.arctan2(down, right) + rng.uniform(0, 6))


def predict(rng: np.random.Generator, masks: FakeMasks, truth: Truth, skill: float) -> np.ndarray:
    """The truth, moved a little; the less skill the farther, with structures missed and invented: ``(N, K, H, W)``."""
    said = np.zeros_like(truth.planes)
    wrong = 1 / (1 + np.exp(2.5 + skill))
    for n, k in np.ndindex(said.shape[:2]):
        far = (rng.normal(0, 1.2 + 20 * wrong, 2)).round().astype(int)
        if truth.planes[n, k].any() and rng.random() > wrong / 2:
            said[n, k] = np.roll(truth.planes[n, k], far, axis=(0, 1))
        elif not truth.planes[n, k].any() and rng.random() < wrong:
            said[n, k, 20:30, 20:30] = True
    if not masks.overlapping:
        said &= np.cumsum(said, axis=1) == 1
    if masks.ignored:
        said[:, 0] |= truth.ignored & (rng.random(len(said)) < 0.5)[:, None, None]
    inside = np.arange(said.shape[2])[None, :, None] < truth.sizes[:, 0, None, None]
    inside = inside & (np.arange(said.shape[3])[None, None] < truth.sizes[:, 1, None, None])
    return said & inside[:, None]


def count(masks: FakeMasks, truth: Truth, said: np.ndarray, rng: np.random.Generator) -> MaskScores:
    """The scores of predictions. Distances are not measured: they fall with Dice, and follow the rule where one of the
    two has no structure."""
    ids = np.array([f"case{i:05d}" for i in range(len(said))])
    counted = said & ~truth.ignored[:, None]
    true, found = truth.planes.sum(axis=(2, 3)), counted.sum(axis=(2, 3))
    hit = (truth.planes & counted).sum(axis=(2, 3))
    unmasked = said.sum(axis=(2, 3)) if masks.ignored else None
    scores = MaskScores(ids, true, found, hit, said_unmasked=unmasked)
    dice, unit = scores.dice(), masks.spacing or 1.0
    hd95 = unit * np.round(25 * (1 - dice) * rng.uniform(0.5, 1.5, dice.shape), 1)
    hd95[(true > 0) != (found > 0)] = unit * np.hypot(*masks.size)
    return MaskScores(ids, true, found, hit, hd95.astype(np.float32).astype(np.float64), unmasked)


def save_scores(path: Path, scores: MaskScores) -> None:
    """Write ``predictions_*.npz``."""
    arrays = {name: getattr(scores, name) for name in ("ids", "true", "said", "hit", "said_unmasked", "groups")}
    arrays["hd95"] = None if scores.hd95 is None else scores.hd95.astype(np.float32)
    np.savez_compressed(path, **{name: array for name, array in arrays.items() if array is not None})


def save_examples(path: Path, masks: FakeMasks, truth: Truth, said: np.ndarray, scores: MaskScores) -> None:
    """Write ``examples.npz``: the first cases as those of the spread, then the run's worst and best."""
    dice = np.nan_to_num(scores.dice(), nan=1.0).mean(axis=1)
    order = [n for n in np.argsort(dice, kind="stable") if n >= masks.spread]
    chosen = [(n, "spread") for n in range(min(masks.spread, len(said)))]
    chosen += [(n, "worst") for n in order[: masks.extreme]]
    chosen += [(n, "best") for n in order[masks.extreme :][-masks.extreme :]]
    places = [n for n, _ in chosen]
    truths, saids = (_stored(masks, p[places], truth.ignored[places]) for p in (truth.planes, said))
    np.savez_compressed(
        path,
        images=truth.images[places],
        ids=scores.ids[places],
        truth=truths,
        said=saids if not masks.ignored else _stored(masks, said[places], np.zeros_like(truth.ignored[places])),
        sizes=truth.sizes[places],
        kept=np.array([why for _, why in chosen]),
    )


def _stored(masks: FakeMasks, planes: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    if masks.overlapping:
        return planes.astype(np.uint8)
    numbers = np.arange(planes.shape[1]) + masks.background
    stored = (planes * numbers[:, None, None]).sum(axis=1)
    if not masks.background:
        stored[~planes.any(axis=1)] = 255
    stored[ignored] = 255
    return stored.astype(np.uint8)


def card_of(masks: FakeMasks, truth: dict[str, Truth], classes: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a data card that masks have of their own."""
    counts = {}
    for split, cases in truth.items():
        pixels = cases.planes.sum(axis=(0, 2, 3)).tolist()
        inside = int((cases.sizes.prod(axis=1)).sum())
        rest = inside - int(cases.planes.any(axis=1).sum()) - int(cases.ignored.sum())
        counts[split] = [*([rest] if masks.background and not masks.overlapping else []), *pixels]
    return {
        "task": "segmentation",
        "classes": list(classes),
        "class_counts": counts,
        "image_size": None if masks.vary else list(masks.size),
        "overlapping": masks.overlapping,
        "background": 0 if masks.background and not masks.overlapping else None,
        "ignore_label": 255 if masks.ignored else None,
        "spacing": None if masks.spacing is None else [masks.spacing] * 2,
        "empty_masks": {split: int((~t.planes.any(axis=(1, 2, 3))).sum()) for split, t in truth.items()},
        "ignored_pixels": {split: int(t.ignored.sum()) for split, t in truth.items()},
    }
