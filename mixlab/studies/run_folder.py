"""A run folder: all that is known of one training. Written here; the report reads it and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mixlab.errors import expected
from mixlab.studies.configuration import dump_yaml, load_yaml
from mixlab.training.files import write_atomically, write_json, write_text

State = Literal["pending", "running", "finished", "failed", "diverged", "interrupted"]
#: States of a run that has a result; the others are run again, from their last checkpoint.
DONE: frozenset[str] = frozenset({"finished", "diverged"})

#: Exit code of a process that found its run locked (EX_TEMPFAIL).
LOCKED_EXIT = 75


class Locked(RuntimeError):
    """Another process trains this run."""


class RunFolder:
    """The folder of one run.

    Args:
        path: its path; need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.imports = self.path / "imports"
        self.log = self.path / "log.txt"

    @property
    def name(self) -> str:
        """The folder's name: label, seed, fold and hash."""
        return self.path.name

    def create(self, config: dict[str, Any], imports: Sequence[str] = ()) -> None:
        """Make the folder with its configuration and copies of the user's files; nothing is overwritten but these."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        write_text(self.path / "config.yaml", dump_yaml(config))
        for file in imports:
            self.imports.mkdir(exist_ok=True)
            shutil.copyfile(file, self.imports / Path(file).name)
        if not (self.path / "status.json").exists():
            self.set_status("pending", epoch=0, epochs=None, message="", started=None, best=None, diverged=None)

    def relabel(self, label: str) -> None:
        """Write another label: that of the grid which uses a finished run again."""
        config, summary = self.config(), self.summary()
        if config["label"] != label:
            write_text(self.path / "config.yaml", dump_yaml({**config, "label": label}))
        if summary is not None and summary["label"] != label:
            self.write_json("summary.json", {**summary, "label": label})

    def config(self) -> dict[str, Any]:
        """The content of ``config.yaml``."""
        return load_yaml(self.path / "config.yaml")

    def environment(self) -> dict[str, Any]:
        """The content of ``environment.json``; empty before the first training."""
        return self._read_json("environment.json") or {}

    # Status

    def status(self) -> dict[str, Any]:
        """The content of ``status.json``; ``pending`` where there is none."""
        return self._read_json("status.json") or {"state": "pending", "epoch": 0, "epochs": None, "message": ""}

    def set_status(self, state: State, **values: Any) -> None:
        """Write a state, and change the given fields of ``status.json``."""
        old = self._read_json("status.json") or {}
        who = {"pid": os.getpid(), "host": socket.gethostname()}
        write_json(self.path / "status.json", {**old, **values, "state": state, "updated": now(), **who})

    def state(self) -> State:
        """The state as it is: one that says ``running`` though nobody holds the lock was killed: ``interrupted``."""
        state: State = self.status()["state"]
        if state == "running" and not self.is_locked():
            return "interrupted"
        if state == "finished" and not (self.path / "summary.json").exists():
            return "interrupted"
        return state

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process.

        Raises:
            Locked: another process holds it.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise Locked(f"{self.name} is being trained by another process") from None
        try:
            yield
        finally:
            lock.release()

    def is_locked(self) -> bool:
        """Whether some process trains this run now."""
        if not (self.path / ".lock").exists():
            return False
        try:
            with self.lock():
                return False
        except Locked:
            return True

    # Metrics

    def add_metrics(self, line: dict[str, Any]) -> None:
        """Append an epoch's metrics, in one write, on disk before the checkpoint is."""
        with open(self.path / "metrics.jsonl", "ab", buffering=0) as file:
            file.write((json.dumps(line) + "\n").encode())
            os.fsync(file.fileno())

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``; an incomplete last line (a kill while writing) is not one."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return found

    def keep_metrics(self, epochs: int) -> None:
        """Drop the metrics of epochs that no checkpoint holds."""
        kept = [line for line in self.metrics() if line["epoch"] <= epochs]
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))

    # Results

    def write_json(self, name: str, value: Any) -> None:
        """Write ``name`` (``environment.json``, ``summary.json``, ...)."""
        write_json(self.path / name, value)

    def summary(self) -> dict[str, Any] | None:
        """The content of ``summary.json``, None before the run is finished."""
        return self._read_json("summary.json")

    def write_predictions(self, split: str, ids: Sequence[str], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write ``predictions_<split>.npz``: ``ids`` and arrays with one row a case."""
        self._write_npz(f"predictions_{split}.npz", ids=np.asarray(ids), **arrays)

    def write_examples(self, ids: Sequence[str], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write ``examples.npz``: ``ids`` and arrays with one row a case."""
        self._write_npz("examples.npz", ids=np.asarray(ids), **arrays)

    def log_tail(self, lines: int = 30) -> str:
        """The end of what the process printed; of a crash in C code from where Python reports it."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        fatal = text.rfind("Fatal Python error")
        if fatal >= 0:
            return "\n".join(text[fatal:].splitlines()[:lines])
        return "\n".join(text.splitlines()[-lines:])

    def _write_npz(self, name: str, **arrays: NDArray[Any]) -> None:
        write_atomically(self.path / name, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]

    def _read_json(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        return json.loads(path.read_text()) if path.exists() else None


def open_run(path: Path) -> RunFolder:
    """The run folder at ``path``.

    Raises:
        UserError: there is none.
    """
    if not (path / "config.yaml").is_file():
        hint = "a folder below STUDY/runs"
        raise expected("run folder", "a folder with a config.yaml", str(path), hint)
    return RunFolder(path)


def run_folders(study: Path) -> list[RunFolder]:
    """The runs of a study folder, by name.

    Raises:
        UserError: the folder holds no study.
    """
    if not (study / "study.yaml").is_file():
        raise expected("study folder", "a folder with a study.yaml", str(study), "the --out of `mixlab study run`")
    return [RunFolder(p.parent) for p in sorted(study.glob("runs/*/config.yaml"))]


def now() -> str:
    """Local time in ISO format, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
