"""What is shown while a study runs: a line a running job and one for the whole, or plain lines where nobody looks."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from mixlab.studies.plan import PlannedRun
from mixlab.training.selection import told

STYLE = {"finished": "green", "diverged": "yellow", "failed": "red", "interrupted": "yellow"}


class Remaining(ProgressColumn):
    """Time to the end at the mean speed since the start; rich's own looks at the last seconds only and jumps."""

    def render(self, task: Task) -> Text:
        done = task.completed / task.total if task.total else 0.0
        if not done or task.elapsed is None or done >= 1.0:
            return Text("", style="progress.remaining")
        return Text(f"{clock(task.elapsed / done * (1 - done))} left", style="progress.remaining")


class StudyProgress:
    """Implements :class:`mixlab.studies.executor.Watcher` on a rich console.

    Args:
        console: where to print.
        total: runs of the grid.
        done: runs that were finished before.
    """

    def __init__(self, console: Console, *, total: int, done: int) -> None:
        self.console = console
        self.total, self.done, self.left = total, done, total - done
        self.began: float | None = None  # when the first batch was trained: starting is no part of the speed
        self.shares: dict[str, float] = {}
        self.tasks: dict[str, TaskID] = {}
        self.numbers: dict[str, int] = {}
        self.scores: dict[str, str] = {}
        self.live = console.is_terminal
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),
            TextColumn("{task.fields[detail]}"),
            Remaining(),
            console=console,
            disable=not self.live,
        )
        self.whole = self.progress.add_task("study", total=float(self.left), detail=f"{done} of {total} runs")

    def __enter__(self) -> StudyProgress:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self.tasks.values():
            self.progress.remove_task(task)
        self.progress.stop()

    def started(self, run: PlannedRun) -> None:
        """A run's process was started."""
        name = run.folder.name
        self.numbers.setdefault(name, self.done + len(self.numbers) + 1)
        self.tasks[name] = self.progress.add_task(self._title(run), total=1.0, detail="starting")
        if not self.live:
            self._say(f"{self._title(run)}: started")

    def event(self, run: PlannedRun, event: dict[str, Any]) -> None:
        """A run trained a batch or an epoch."""
        name, epochs = run.folder.name, event["epochs"]
        self.began = self.began or time.monotonic()
        if event["kind"] == "batch":
            share = (event["epoch"] - 1 + event["batch"] / event["batches"]) / epochs
            detail = f"epoch {event['epoch']}/{epochs} loss {event['loss']:.2f}{self.scores.get(name, '')}"
            self._advance(name, share, detail=detail)
            return
        loss = event["train/loss"]
        self.scores[name] = f" {told(event, 'val/')}"
        detail = f"epoch {event['epoch']}/{epochs} loss {loss:.2f}{self.scores[name]}"
        self._advance(name, event["epoch"] / epochs, detail=detail)
        if not self.live and _worth_a_line(event["epoch"], epochs):
            text = f"epoch {event['epoch']}/{epochs}, loss {loss:.3f}, val {told(event, 'val/')}"
            self._say(f"{self._title(run)}: {text}, {self._left()} left in all")

    def ended(self, run: PlannedRun, state: str) -> None:
        """A run's process ended."""
        name = run.folder.name
        if name in self.tasks:
            self.progress.remove_task(self.tasks.pop(name))
        self._advance(name, 1.0)
        status = run.folder.status()
        text = f"{self._title(run)}: [{STYLE.get(state, 'default')}]{state}[/]"
        if state == "finished":
            best = status["best"]
            text += f", best val {told(best)} in epoch {best['epoch']}"
        self.console.print(text + (f": {status['message']}" if status.get("message") else ""), highlight=False)
        if state == "failed":
            self.console.print(f"  see {run.folder.log}", highlight=False, soft_wrap=True)

    def waiting(self, run: PlannedRun) -> None:
        """A run is trained by another process."""
        name = run.folder.name
        if name in self.tasks:
            self.progress.remove_task(self.tasks.pop(name))
            self._say(f"{self._title(run)}: waiting, another process trains it")

    def _advance(self, name: str, share: float, **fields: Any) -> None:
        self.shares[name] = share
        if name in self.tasks:
            self.progress.update(self.tasks[name], completed=share, **fields)
        ended = self.done + len(self.shares) - len(self.tasks)
        self.progress.update(self.whole, completed=sum(self.shares.values()), detail=f"{ended} of {self.total} runs")

    def _title(self, run: PlannedRun) -> str:
        seed = f"seed {run.config.seed}" + ("" if run.config.fold is None else f", fold {run.config.fold}")
        number = self.numbers.get(run.folder.name)
        return f"{f'[{number}/{self.total}] '.replace('[', chr(92) + '[') if number else ''}{run.config.label} ({seed})"

    def _left(self) -> str:
        share = sum(self.shares.values())
        if not share or self.began is None:
            return "?"
        return clock((time.monotonic() - self.began) / share * (self.left - share))

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)


def _worth_a_line(epoch: int, epochs: int) -> bool:
    """About ten lines a run where lines pile up."""
    return epoch == epochs or epoch % max(1, epochs // 10) == 0


def clock(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
