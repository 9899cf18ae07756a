"""Reads a study's run folders into records; whatever cannot be read becomes a problem in the record, not an error.

Only the documented files are read (``config.yaml``, ``environment.json``, ``status.json``, ``metrics.jsonl``,
``summary.json``, ``data_card.json``, ``predictions_*.npz``, ``examples.npz``), never a checkpoint, never the data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from mixlab.errors import expected
from mixlab.studies.case_metrics import Predictions
from mixlab.studies.facts import slug
from mixlab.studies.report.run_record import Json, RunRecord, number
from mixlab.studies.run_folder import RunFolder
from mixlab.training.mask_scores import MaskScores

__all__ = ["Json", "RunRecord", "StudyRecord", "by_data", "number", "read_run", "read_study"]


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
    def masks(self) -> bool:
        """Whether the runs segment, by the data card; by the predictions where no run has a card."""
        if self.card:
            return bool(self.card.get("task") == "segmentation")
        return any(isinstance(run.predictions("test"), MaskScores) for run in self.finished)

    @property
    def classes(self) -> list[str]:
        """The class names; numbers where the card has none."""
        names = [str(name) for name in self.card.get("classes") or []]
        if names:
            return names
        found = [run.predictions("test") for run in self.finished]
        shapes = [(p.probabilities if isinstance(p, Predictions) else p.hit).shape[1] for p in found if p is not None]
        return [str(k) for k in range(max(shapes, default=0))]

    @property
    def structures(self) -> list[str]:
        """The classes of masks without the background, in order."""
        background = self.card.get("background")
        return [name for place, name in enumerate(self.classes) if place != background]


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
