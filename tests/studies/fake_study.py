"""Writes study folders in the run-folder format, with results drawn from a seeded generator: for tests only."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from .fake_masks import FakeMasks, Truth, card_of, count, make_truth, predict, save_examples, save_scores

KERNELLED = ("pooling", "sep_conv", "conv", "local_attention")
PACKAGES = {"torch": "2.11.0", "lightning": "2.6.0", "timm": "1.0.22", "numpy": "2.4.6"}


@dataclass
class FakeStudy:
    """What to write. ``skill`` is each label's log-odds of being right; ``states`` overrides (label, seed) states;
    ``stand_ins`` says of labels what their runs had stand-ins for, ``variants`` which variant they are; with ``masks``
    the study segments."""

    labels: tuple[str, ...] = ("identity", "pooling-k3", "sep_conv-k3", "local_attention-k3")
    skill: dict[str, float] = field(default_factory=lambda: {"identity": -0.6})
    seeds: tuple[int, ...] = (0, 1)
    folds: tuple[int | None, ...] = (None,)
    classes: tuple[str, ...] = tuple(str(k) for k in range(10))
    cases: int = 300
    epochs: int = 12
    seed_sd: float = 0.15
    multilabel: bool = False
    examples: int = 12
    rgb: bool = False
    states: dict[tuple[str, int], str] = field(default_factory=dict)
    generator: int = 0
    data: str = "digits"
    stand_ins: dict[str, list[str]] = field(default_factory=dict)
    variants: dict[str, str] = field(default_factory=dict)
    masks: FakeMasks | None = None

    @property
    def structures(self) -> int:
        """Classes of the masks without the background."""
        assert self.masks is not None
        return len(self.classes) - (self.masks.background and not self.masks.overlapping)


def write_study(folder: Path, spec: FakeStudy) -> Path:
    """Write ``spec`` as a study folder and return it."""
    rng = np.random.default_rng(spec.generator)
    folder.mkdir(parents=True, exist_ok=True)
    study: dict[str, Any] = {
        "name": folder.name,
        "model": "metaformer_nano",
        "mixers": sorted({_parts(label)[0] for label in spec.labels}),
        "kernel_sizes": sorted({kernel for label in spec.labels if (kernel := _parts(label)[1]) is not None}),
        "seeds": list(spec.seeds),
        "folds": len(spec.folds) if spec.folds[0] is not None else None,
        "labels": list(spec.labels),
        "data": [{"name": spec.data}],
        "recipe": {"epochs": spec.epochs, "lr": 0.001},
        "created": "2026-01-05T09:00:00+00:00",
    }
    truth: dict[str, Any] = {split: _truth(rng, spec) for split in ("val", "test")}
    images = rng.integers(0, 255, (spec.examples, 28, 28, 3) if spec.rgb else (spec.examples, 28, 28), dtype=np.uint8)
    for label in spec.labels:
        for seed in spec.seeds:
            for fold in spec.folds:
                _write_run(folder, spec, rng, label, seed, fold, truth, images)
    study["runs"] = [{"folder": path.name} for path in sorted((folder / "runs").iterdir())]
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return folder


def _parts(label: str) -> tuple[str, int | None]:
    """Mixer and kernel size of ``mixer[-k<size>][-<data>]``."""
    mixer, *rest = label.split("-")
    sizes = [int(word[1:]) for word in rest if word.startswith("k")]
    return mixer, sizes[0] if sizes else None


def _truth(rng: np.random.Generator, spec: FakeStudy) -> tuple[np.ndarray, np.ndarray] | Truth:
    if spec.masks is not None:
        return make_truth(rng, spec.masks, spec.cases, spec.structures, spec.rgb)
    count = len(spec.classes)
    if spec.multilabel:
        return (rng.random((spec.cases, count)) < 0.3).astype(np.float32), rng.normal(1.2, 1.3, (spec.cases, count))
    return np.arange(spec.cases) % count, rng.normal(1.4, 1.3, spec.cases)


def _probabilities(rng: np.random.Generator, spec: FakeStudy, skill: float, truth: Any) -> np.ndarray:
    targets, ease = truth
    right = rng.random(ease.shape) < 1 / (1 + np.exp(-(ease + skill)))
    if spec.multilabel:
        said = np.where(right, targets, 1 - targets)
        return np.clip(said * 0.7 + rng.uniform(0, 0.3, said.shape), 0, 1).astype(np.float32)
    count = len(spec.classes)
    other = (targets + rng.integers(1, max(2, count), len(targets))) % count
    logits = rng.normal(0, 0.5, (len(targets), count))
    logits[np.arange(len(targets)), np.where(right, targets, other)] += 3.0
    odds = np.exp(logits)
    return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)


def _confusion(spec: FakeStudy, targets: np.ndarray, probabilities: np.ndarray) -> tuple[Any, list[float]]:
    count = len(spec.classes)
    if not spec.multilabel:
        matrix = np.zeros((count, count), dtype=int)
        np.add.at(matrix, (targets, probabilities.argmax(axis=1)), 1)
        return matrix.tolist(), (np.diag(matrix) / np.maximum(1, matrix.sum(axis=1))).tolist()
    tables = np.zeros((count, 2, 2), dtype=int)
    for k in range(count):
        np.add.at(tables[k], (targets[:, k].astype(int), (probabilities[:, k] >= 0.5).astype(int)), 1)
    return tables.tolist(), (tables[:, 1, 1] / np.maximum(1, tables[:, 1].sum(axis=1))).tolist()


def _scores(spec: FakeStudy, targets: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    from mixlab.studies.case_metrics import METRICS, Predictions, point_value

    ids = np.array([f"case{i:05d}" for i in range(len(targets))])
    found = Predictions(ids, targets, probabilities.astype(np.float64))
    return {"loss": 0.5, **{metric: point_value(found, metric) for metric in METRICS}}


def _write_run(
    folder: Path,
    spec: FakeStudy,
    rng: np.random.Generator,
    label: str,
    seed: int,
    fold: int | None,
    truth: Any,
    images: Any,
) -> None:
    mixer, kernel = _parts(label)
    state = spec.states.get((label, seed), "finished")
    name = f"{label}-s{seed}" + ("" if fold is None else f"-f{fold}") + f"-{rng.integers(16**12):012x}"
    run = folder / "runs" / name
    run.mkdir(parents=True)
    model = {"name": "metaformer_nano", "token_mixer": mixer, "kernel_size": kernel}
    config = {
        "model": model,
        "data": {"name": spec.data, "train_per_class": 20},
        "recipe": {"epochs": spec.epochs, "lr": 0.001},
        "seed": seed,
        "fold": fold,
        "precision": "32-true",
        "imports": [],
        "numerics_version": 1,
        "hash": name[-12:],
        "label": label,
    }
    config["variant"] = spec.variants.get(label, "")
    if label in spec.stand_ins:
        config["stand_ins"] = spec.stand_ins[label]
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    environment: dict[str, Any] = {
        "mixlab": "0.1.0",
        "python": "3.11.9",
        "torch": "2.11.0",
        "platform": "Linux",
        "cpu": "x86_64",
    }
    environment |= {
        "device": "cpu",
        "threads": 1,
        "workers": 0,
        "precision": "32-true",
        "started": f"2026-01-05T09:0{seed}",
    }
    if mixer == "local_attention":
        entry = {"computed_by": "native (avx512)", "asked": "auto", "because": "the fastest", "not": {"pure": "slower"}}
        dense = {**entry, "computed_by": "pure, dense"}
        problems = [("14 x 14", entry), ("7 x 7", entry), ("4 x 4", dense)]
        environment["local_attention"] = [{"problem": f"{size}, window 3 x 3", **e} for size, e in problems]
    else:
        environment["local_attention"] = []
    (run / "environment.json").write_text(json.dumps(environment | {"packages": PACKAGES}))
    diverged = {"step": 120, "epoch": 3, "best": 0.41} if state == "diverged" else None
    status = {
        "state": state,
        "epoch": spec.epochs if state == "finished" else 3,
        "epochs": spec.epochs,
        "diverged": diverged,
    }
    status |= {"message": "" if state == "finished" else f"run {state}: <loss is not finite>", "best": None}
    (run / "status.json").write_text(json.dumps(status))
    (run / "data_card.json").write_text(json.dumps(_card(spec, truth)))
    skill = spec.skill.get(label, 0.0) + rng.normal(0, spec.seed_sd)
    _write_metrics(run, rng, spec, skill, spec.epochs if state == "finished" else 4)
    if state == "finished":
        _write_results(run, spec, rng, label, seed, fold, truth, images, skill)


def _write_metrics(run: Path, rng: np.random.Generator, spec: FakeStudy, skill: float, epochs: int) -> None:
    lines = []
    for epoch in range(1, epochs + 1):
        level = (0.75 + 0.1 * skill) * (1 - np.exp(-epoch / 3)) + rng.normal(0, 0.01)
        row = {"epoch": epoch, "step": 10 * epoch, "lr": 0.001, "train/loss": 2 - level, "val/loss": 1.8 - level}
        row |= (
            {"val/dice": level}
            if spec.masks
            else {
                "val/accuracy": level,
                "val/balanced_accuracy": level,
                "val/auroc": 0.5 + level / 2,
                "val/macro_f1": level,
            }
        )
        lines.append(json.dumps(row | {"seconds": 1.5}))
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def _write_results(
    run: Path,
    spec: FakeStudy,
    rng: np.random.Generator,
    label: str,
    seed: int,
    fold: int | None,
    truth: Any,
    images: Any,
    skill: float,
) -> None:
    mixer, kernel = _parts(label)
    cost = 1.0 + 0.2 * len(mixer)
    summary: dict[str, Any] = {"label": label, "mixer": mixer, "kernel_size": kernel}
    summary |= {"model": "metaformer_nano", "seed": seed, "fold": fold, "parameters": int(200_000 * cost)}
    summary |= {"macs": int(9e6 * cost), "macs_needed": int(8e6 * cost), "macs_dense": int(3e7 * cost)}
    summary |= {"seconds_per_epoch": 1.2 * cost, "total_seconds": 15 * cost, "peak_memory_mb": 300 + 40 * cost}
    summary |= {"device": "cpu", "best_epoch": spec.epochs - 2}
    for split in ("val", "test"):
        if spec.masks is not None:
            summary[split] = _write_masks(run, spec.masks, rng, split, truth[split], skill, (label, seed))
            continue
        targets = truth[split][0]
        probabilities = _probabilities(rng, spec, skill, truth[split])
        ids = np.array([f"case{i:05d}" for i in range(spec.cases)])
        np.savez_compressed(run / f"predictions_{split}.npz", ids=ids, targets=targets, probabilities=probabilities)
        summary[split] = _scores(spec, targets, probabilities)
        confusion, recall = _confusion(spec, targets, probabilities)
        summary[split] |= {"confusion": confusion, "per_class_recall": recall}
        if split == "test":
            np.savez_compressed(run / "examples.npz", images=images, ids=ids[: spec.examples])
    summary["events"] = [{"kind": "attention", "message": "global attention: the window covers the 4 x 4 grid"}]
    (run / "summary.json").write_text(json.dumps(summary))


def _write_masks(
    run: Path, masks: FakeMasks, rng: np.random.Generator, split: str, truth: Truth, skill: float, who: tuple[str, int]
) -> dict[str, Any]:
    """Write predictions, and of the test split examples; return the metrics for ``summary.json``."""
    said = predict(rng, masks, truth, skill)
    scores = count(masks, truth, said, rng)
    if split == "test":
        save_examples(run / "examples.npz", masks, truth, said, scores)
        scores = masks.given.get(who, scores)
    save_scores(run / f"predictions_{split}.npz", scores)
    return {"loss": 0.5, "hd95_unit": "pixels" if masks.spacing is None else "mm", **scores.metrics()}


def _card(spec: FakeStudy, truth: dict[str, Any]) -> dict[str, Any]:
    counts = {name: spec.cases // len(spec.classes) for name in spec.classes}
    card = {
        "name": spec.data,
        "task": "multilabel" if spec.multilabel else "classification",
        "classes": list(spec.classes),
        "channels": 3 if spec.rgb else 1,
        "spatial_dims": 2,
        "image_size": [28, 28],
        "sizes": {"train": 200, "val": spec.cases, "test": spec.cases},
        "class_counts": {"train": counts, "val": counts, "test": counts},
        "mean": [0.31],
        "std": [0.28],
        "flips": [],
        "source": "scikit-learn, https://archive.ics.uci.edu/dataset/80",
        "licence": "CC BY 4.0",
        "citation": "E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits (1998)",
        "splits": "seeded, stratified",
        "notes": ["Writers are not separated between the splits."],
        "fingerprint": "3f0a" * 16,
    }
    return card if spec.masks is None else card | card_of(spec.masks, truth, spec.classes)
