"""The child process of a run: its log, its lock, its end when the parent dies."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from typing import Any

from mixlab.errors import UserError
from mixlab.studies.plan import PlannedRun
from mixlab.studies.run import train_run
from mixlab.studies.run_folder import LOCKED_EXIT, Locked
from mixlab.training.machine import Machine


def child_main(run: PlannedRun, machine: Machine, parent: Connection) -> None:
    """Train one run in this process; the run's folder tells how it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its children
    _log_to(run.folder.log)
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    try:
        with run.folder.lock():
            _train(run, machine, parent)
    except Locked:
        sys.exit(LOCKED_EXIT)


def _train(run: PlannedRun, machine: Machine, parent: Connection) -> None:
    def listen(event: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            parent.send(event)

    try:
        train_run(run, machine, listen)
    except UserError as error:
        run.folder.set_status("failed", message=str(error))
    except Exception as error:
        traceback.print_exc()
        sys.stderr.flush()
        message = f"{type(error).__name__}: {error}"
        run.folder.set_status("failed", message=message, log_tail=run.folder.log_tail())


def _log_to(path: Any) -> None:
    """Send everything that this process prints, from C code too, to the run's log."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    faulthandler.enable(file=2)


def _die_with(parent: Connection) -> None:
    """End this process when the other end of the pipe closes: the parent never sends, so reading ends with it."""
    with contextlib.suppress(EOFError, OSError):
        parent.recv()
    os._exit(1)
