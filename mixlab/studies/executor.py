"""Runs in child processes of this machine.

Each run is a process of its own: its peak memory is the run's, and its crash is the run's. Importing torch and
Lightning takes seconds, so children are forked from a server that did it once; where there is no fork server they are
spawned.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from mixlab.studies.plan import PlannedRun
from mixlab.studies.run_folder import LOCKED_EXIT, State
from mixlab.training.machine import Machine

#: Seconds between two looks at a run that another process trains.
LOCKED_PAUSE = 2.0


class Watcher(Protocol):
    """Who is told what happens: the progress display."""

    def started(self, run: PlannedRun) -> None:
        """A run's process was started."""

    def event(self, run: PlannedRun, event: dict[str, Any]) -> None:
        """A run trained a batch or an epoch."""

    def ended(self, run: PlannedRun, state: str) -> None:
        """A run's process ended, in this state."""

    def waiting(self, run: PlannedRun) -> None:
        """A run is trained by another process."""


@dataclass
class Job:
    """A run and its process."""

    run: PlannedRun
    process: Any
    connection: Connection
    open: bool = True


@dataclass
class Executor:
    """Trains runs, at most ``jobs`` at a time.

    Args:
        machine_for: how each run is computed.
        jobs: processes at a time.
        watcher: who is told.
        threads: threads a process, for the libraries that read it from the environment when they are loaded.
    """

    machine_for: Callable[[PlannedRun], Machine]
    jobs: int
    watcher: Watcher
    threads: int = 1
    _running: list[Job] = field(default_factory=list)
    _waiting: deque[tuple[float, PlannedRun]] = field(default_factory=deque)

    def run(self, runs: Sequence[PlannedRun]) -> None:
        """Train all runs; returns when each is finished, diverged or failed.

        On Ctrl-C the children are killed, which loses at most the epoch that they were in, and their runs are marked
        as interrupted.
        """
        queue = deque(runs)
        context = start_context({run.task for run in runs})
        try:
            with _environment(self.threads):
                while queue or self._running or self._waiting:
                    self._take_back(queue)
                    while queue and len(self._running) < self.jobs:
                        self._start(queue.popleft(), context)
                    self._listen()
        finally:
            self._kill_all()

    def _take_back(self, queue: deque[PlannedRun]) -> None:
        """Return runs that were locked a while ago to the queue, or drop them if they are done meanwhile."""
        while self._waiting and (self._waiting[0][0] <= time.monotonic()):
            _, run = self._waiting.popleft()
            if run.done:
                self.watcher.ended(run, run.folder.state())
            else:
                queue.append(run)

    def _start(self, run: PlannedRun, context: Any) -> None:
        from mixlab.studies.worker import child_main

        ours, theirs = context.Pipe()
        # Not a daemon: daemons may have no children, and loader workers are children.
        process = context.Process(target=child_main, args=(run, self.machine_for(run), theirs), name=run.folder.name)
        process.start()
        theirs.close()
        self._running.append(Job(run, process, ours))
        self.watcher.started(run)

    def _listen(self) -> None:
        """Pass on what the children say, for at most half a second, and collect those that ended."""
        if not self._running:
            time.sleep(min(0.5, LOCKED_PAUSE))
            return
        by_source: dict[Any, Job] = {job.connection: job for job in self._running if job.open}
        by_source |= {job.process.sentinel: job for job in self._running}
        for source in wait(list(by_source), timeout=0.5):
            job = by_source[source]
            if source is job.connection:
                self._receive(job)
        for job in [job for job in self._running if job.process.exitcode is not None]:
            while job.open and job.connection.poll():
                self._receive(job)
            self._collect(job)

    def _receive(self, job: Job) -> None:
        try:
            self.watcher.event(job.run, job.connection.recv())
        except (EOFError, OSError):
            job.open = False

    def _collect(self, job: Job) -> None:
        self._running.remove(job)
        job.process.join()
        job.connection.close()
        code = job.process.exitcode
        if code == LOCKED_EXIT:
            self._waiting.append((time.monotonic() + LOCKED_PAUSE, job.run))
            self.watcher.waiting(job.run)
            return
        status = job.run.folder.status()
        if status["state"] in ("pending", "running"):
            tail = job.run.folder.log_tail()
            self._set_status(job.run, "failed", message=_reason(code), log_tail=tail)
        self.watcher.ended(job.run, job.run.folder.state())

    def _kill_all(self) -> None:
        for job in self._running:
            job.process.kill()
        for job in self._running:
            job.process.join()
            job.connection.close()
            if job.run.folder.status()["state"] in ("pending", "running"):
                self._set_status(job.run, "interrupted", message="interrupted; the same command goes on")
        self._running.clear()

    def _set_status(self, run: PlannedRun, state: State, **values: Any) -> None:
        """Write how a run ended; on a full disk the old state stays, which reads as interrupted, and others go on."""
        try:
            run.folder.set_status(state, **values)
        except OSError as error:
            print(f"{run.folder.name}: {state}, which could not be written: {error.strerror or error}", file=sys.stderr)


def start_context(tasks: Collection[str] = ()) -> Any:
    """A warm fork server, or spawn where there is none (Windows); what takes seconds to import is there already."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    for_masks = ["monai"] if "segmentation" in tasks else []
    context.set_forkserver_preload(["mixlab.studies.worker", "mixlab.data", *for_masks])
    return context


@contextlib.contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Thread settings in the environment while the fork server starts: OpenMP and BLAS read them once."""
    wanted = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    # Threads that spin while they wait stall each other when cores are shared with busy processes.
    wanted["OMP_WAIT_POLICY"] = "PASSIVE"
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _reason(code: int) -> str:
    if code == -9:
        return "the process was killed (signal 9); often the system's answer to too little memory"
    if code < 0:
        return f"the process was ended by signal {-code}"
    return f"the process ended with exit code {code}"
