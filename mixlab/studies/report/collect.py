"""Reads a study's run folders into records; whatever cannot be read becomes a problem in the record, not an error.

Only the documented files are read (``config.yaml``, ``environment.json``, ``status.json``, ``metrics.jsonl``,
``summary.json``, ``data_card.json``, ``predictions_*.npz``, ``examples.npz``), never a checkpoint, never the data.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from mixlab.errors import expected
from mixlab.studies.case_metrics import Predictions
from mixlab.studies.facts import slug
from mixlab.studies.run_folder import RunFolder

Json = dict[str, Any]


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

    def predictions(self, split: str) -> Predictions | None:
        """The predictions on ``split`` (read once); None, and a problem, where they cannot be read."""
        if split not in self._arrays:
            arrays = self._load(f"predictions_{split}.npz", ("ids", "targets", "probabilities"))
            self._arrays[split] = None
            if arrays is not None:
                ids, targets, probabilities = arrays
                if targets.ndim == 2 and targets.shape[1] == 1:
                    targets = targets[:, 0]
                self._arrays[split] = Predictions(ids.astype(str), targets, probabilities.astype(np.float64))
        found: Predictions | None = self._arrays[split]
        return found

    def examples(self) -> tuple[NDArray[np.uint8], list[str]] | None:
        """The kept test images ``(N, H, W[, 3])`` and their case ids."""
        arrays = self._load("examples.npz", ("images", "ids"))
        return None if arrays is None else (arrays[0].astype(np.uint8), [str(i) for i in arrays[1]])

    def _load(self, file: str, names: tuple[str, ...]) -> list[Any] | None:
        path = self.folder / file
        if not path.exists():
            return None
        try:
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as arrays:
                found = [arrays[name] for name in names]
            if len({len(a) for a in found}) != 1:
                raise ValueError("arrays of different length")
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
            self._problem(f"{file} cannot be read: {error}")
            return None
        return found

    def _problem(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)


@dataclass(eq=False)
class StudyRecord:
    """A study folder: the runs of its grid, those that are not used, and those that have no folder.

    Args:
        folder: The study folder.
        config: ``study.yaml``.
        runs: One run for each label, seed and fold.
        unused: Run folders that are not used, with the reason.
        missing: What the grid asks for and no folder holds.
        problems: Files of the study that cannot be read.
    """

    folder: Path
    config: Json
    runs: list[RunRecord]
    unused: list[tuple[RunRecord, str]]
    missing: list[str]
    problems: list[str]

    @property
    def name(self) -> str:
        """The study's name, by default its folder's."""
        return str(self.config.get("name") or self.folder.name)

    @property
    def finished(self) -> list[RunRecord]:
        """The runs with results."""
        return [run for run in self.runs if run.finished]

    @property
    def labels(self) -> list[str]:
        """Every label that has a run."""
        return sorted({run.label for run in self.runs})

    @property
    def card(self) -> Json:
        """The data card, from the first run that has one."""
        return next((run.card for run in self.runs if run.card), {})

    @property
    def classes(self) -> list[str]:
        """The class names; numbers where the card has none."""
        names = [str(name) for name in self.card.get("classes") or []]
        if names:
            return names
        shapes = [p.probabilities.shape[1] for run in self.finished if (p := run.predictions("test")) is not None]
        return [str(k) for k in range(max(shapes, default=0))]


def by_data(study: StudyRecord) -> list[StudyRecord]:
    """The study as one part a data set, whose labels do without the data set's name; the study itself where it has one
    data set only."""
    names = dict.fromkeys(run.data for run in study.runs)
    if len(names) < 2:
        return [study]
    labels = _as_list(study.config.get("labels"))
    parts = []
    for name in names:
        end = f"-{slug(name)}"
        runs = [replace(run, label=run.label.removesuffix(end)) for run in study.runs if run.data == name]
        config = {**study.config, "labels": [str(label).removesuffix(end) for label in labels]}
        parts.append(replace(study, config=config, runs=runs, unused=[], missing=[], problems=[]))
    return parts


def number(value: object) -> float | None:
    """``value`` as a float; None if it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if np.isfinite(value) else None


def read_study(folder: Path | str) -> StudyRecord:
    """Read a study folder.

    Raises:
        UserError: the folder does not exist, or it is no study folder (no ``study.yaml`` and no ``runs``).
    """
    folder = Path(folder)
    if not (folder / "runs").is_dir() and not (folder / "study.yaml").is_file():
        raise expected("study folder", "a folder that holds runs/ or study.yaml", str(folder), "the folder of a study")
    problems: list[str] = []
    config = _read(folder / "study.yaml", problems)
    found = [read_run(path) for path in sorted((folder / "runs").glob("*")) if path.is_dir()]
    there = [run for run in found if run is not None]
    listed = [str(run["folder"]) for run in _as_list(config.get("runs")) if isinstance(run, dict) and "folder" in run]
    unused = [
        (run, "not part of the study as study.yaml has it now") for run in there if listed and run.name not in listed
    ]
    runs, older = _newest([run for run in there if not listed or run.name in listed])
    unused += [(run, "another run of the same label, seed and fold is newer") for run in older]
    missing = [name for name in listed if name not in {run.name for run in there}]
    return StudyRecord(folder, config, runs, unused, missing if listed else _missing(config, runs), problems)


def read_run(folder: Path) -> RunRecord | None:
    """Read a run folder; None if it holds none of a run's files."""
    problems: list[str] = []
    files = ("config.yaml", "environment.json", "status.json", "summary.json", "data_card.json")
    config, environment, status, summary, card = (_read(folder / file, problems) for file in files)
    if not (config or status or summary):
        return None
    label = str(summary.get("label") or config.get("label") or folder.name)
    seed = int(number(config.get("seed", summary.get("seed"))) or 0)
    fold = number(config.get("fold", summary.get("fold")))
    state = _state(folder, status, summary)
    history = _history(folder / "metrics.jsonl", problems)
    fold_number = None if fold is None else int(fold)
    return RunRecord(
        folder, label, seed, fold_number, state, config, environment, status, summary, card, history, problems
    )


def _state(folder: Path, status: Json, summary: Json) -> str:
    """The run's state as it is: one that says ``running`` though no process holds it was interrupted."""
    if not status:
        return "finished" if summary else "unknown"
    try:
        return RunFolder(folder).state()
    except (OSError, ValueError, KeyError):
        return str(status.get("state") or "unknown")


def _read(path: Path, problems: list[str]) -> Json:
    """A YAML or JSON file that holds a mapping; empty, with a problem, when it cannot be read."""
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        loaded = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        problems.append(f"{path.name} cannot be read: {error}")
        return {}
    if not isinstance(loaded, dict):
        problems.append(f"{path.name} holds no mapping")
        return {}
    return loaded


def _history(path: Path, problems: list[str]) -> list[Json]:
    """The epochs of ``metrics.jsonl``; a line that was cut off is left out, the last line of an epoch counts."""
    epochs: dict[int, Json] = {}
    if not path.exists():
        return []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            epochs[int(row["epoch"])] = row
        except (ValueError, KeyError, TypeError):
            problems.append(f"{path.name}: a line cannot be read")
    return [epochs[e] for e in sorted(epochs)]


def _newest(found: Iterable[RunRecord]) -> tuple[list[RunRecord], list[RunRecord]]:
    """One run for each label, seed and fold: a finished one before others, then the one updated last."""
    best: dict[tuple[str, int, int], RunRecord] = {}
    older: list[RunRecord] = []
    for run in found:
        key = (run.label, run.seed, -1 if run.fold is None else run.fold)
        other = best.get(key)
        if other is not None and _recency(other) > _recency(run):
            older.append(run)
            continue
        older += [other] if other is not None else []
        best[key] = run
    return [best[key] for key in sorted(best)], older


def _recency(run: RunRecord) -> tuple[bool, str]:
    return run.finished, str(run.status.get("updated") or run.status.get("started") or "")


def _as_list(value: object) -> list[Any]:
    if isinstance(value, int) and not isinstance(value, bool):
        return list(range(value))
    return list(value) if isinstance(value, list | tuple) else []


def _missing(config: Json, runs: list[RunRecord]) -> list[str]:
    """What a ``study.yaml`` without a list of runs asks for: every label at every seed and fold."""
    there = {(run.label, run.seed, run.fold) for run in runs}
    labels = dict.fromkeys([*map(str, _as_list(config.get("labels"))), *(run.label for run in runs)])
    folds = _as_list(config.get("folds")) or [None]
    wanted = [(label, seed, fold) for label in labels for seed in _as_list(config.get("seeds")) for fold in folds]
    return [
        f"{label}, seed {seed}" + ("" if fold is None else f", fold {fold}")
        for label, seed, fold in wanted
        if (label, seed, fold) not in there
    ]
