"""A whole study: plan, train what is missing, tell where the results are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from mixlab.errors import expected
from mixlab.studies.configuration import dump_yaml, to_plain
from mixlab.studies.environment import cores
from mixlab.studies.executor import Executor
from mixlab.studies.grid import StudyConfig
from mixlab.studies.inputs import resolve
from mixlab.studies.plan import Plan, PlannedRun, check_folder, make_plan
from mixlab.studies.progress import StudyProgress
from mixlab.studies.published import prepare, read
from mixlab.studies.run_config import RunConfig
from mixlab.studies.run_folder import now
from mixlab.studies.user_files import import_files
from mixlab.training.files import write_text
from mixlab.training.machine import Machine, choose_device


@dataclass(kw_only=True, frozen=True)
class Resources:
    """What a study may use of the machine; nothing here enters a run's hash."""

    device: str = "auto"
    """Device to train on: auto, cpu, cuda or mps."""
    jobs: int | None = None
    """Runs at a time, each in a process of its own; default: one a core on a CPU, one on a GPU."""
    threads: int | None = None
    """CPU threads a run; default: the cores divided by the jobs."""
    workers: int | None = None
    """Processes that read images, per run; default: 0 on a CPU, up to 4 on a GPU."""

    def __post_init__(self) -> None:
        for name, least in (("jobs", 1), ("threads", 1), ("workers", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise expected(name, f"at least {least}", value, f"--{name} {least}")

    def resolve(self, runs: int) -> tuple[int, Machine]:
        """Jobs at a time and the machine of each, for a grid of so many runs (finished ones included).

        One thread a run, and a run a core: a second thread brings little to models as small as ``metaformer_nano``.
        """
        device = choose_device(self.device)
        available = cores()
        jobs = self.jobs or (max(1, min(available, runs)) if device == "cpu" else 1)
        threads = self.threads or max(1, available // jobs)
        workers = self.workers if self.workers is not None else (0 if device == "cpu" else min(4, threads - 1))
        return jobs, Machine(device=device, threads=threads, workers=workers)


@dataclass(frozen=True)
class StudyResult:
    """Where a study lies and how its runs ended: state to number of runs."""

    folder: Path
    states: dict[str, int]
    trained: int
    notes: list[str] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Runs without a result."""
        return sum(n for state, n in self.states.items() if state not in ("finished", "diverged"))


def run_study(
    config: StudyConfig, out: Path | None = None, resources: Resources | None = None, console: Console | None = None
) -> StudyResult:
    """Train the runs of a study that are missing, failed or interrupted; finished ones are used again.

    Args:
        config: the study.
        out: its folder; default ``./mixlab-studies/<name>``.
        resources: device, processes, threads.
        console: where progress is shown; default standard error.

    Raises:
        UserError: anything wrong with the study, its data, its models or its folder, before any training.
    """
    out, resources, console = (
        out or default_folder(config.name),
        resources or Resources(),
        console or Console(stderr=True),
    )
    import_files(config.imports)  # the grid may name the user's mixers
    check_folder(out)
    if config.published:
        read(config.published, Path())
    plan = _prepare(resolve(config.runs(), out, stand_ins=config.stand_ins), out, resources)
    prepare(config.published, Path(), out, [run.folder.config() for run in plan.runs])
    write_text(out / "study.yaml", dump_yaml(_resolved(config, plan, out)))
    return _train(plan, out, resources, console)


def run_single(
    config: RunConfig, out: Path, resources: Resources | None = None, console: Console | None = None
) -> tuple[StudyResult, PlannedRun]:
    """Train one run, in ``out/runs``."""
    resources, console = resources or Resources(), console or Console(stderr=True)
    import_files(config.imports)
    plan = _prepare([config], out, resources)
    result = _train(plan, out, resources, console)
    return result, plan.runs[0]


def default_folder(name: str) -> Path:
    """``./mixlab-studies/<name>``."""
    return Path("mixlab-studies") / name


def _prepare(cells: Sequence[RunConfig], out: Path, resources: Resources) -> Plan:
    check_folder(out)
    plan = make_plan(cells, out, choose_device(resources.device))
    for run in plan.runs:
        if run.done:
            run.folder.relabel(run.config.label)
        else:
            run.folder.create(run.config.to_plain(run.fingerprint), run.config.imports)
    return plan


def _train(plan: Plan, out: Path, resources: Resources, console: Console) -> StudyResult:
    todo = [run for run in plan.runs if not run.done]
    for event in plan.events:
        console.print(Text(f"data: {event}", style="dim"), soft_wrap=True)
    for note in plan.notes:
        console.print(f"[yellow]note[/]: {note}", highlight=False)
    if todo:
        jobs, machine = resources.resolve(len(plan.runs))
        _announce(console, plan, len(todo), jobs, machine)
        with StudyProgress(console, total=len(plan.runs), done=len(plan.runs) - len(todo)) as progress:
            machines = _Machines(machine, keep_threads=resources.threads is None)
            Executor(machines, min(jobs, len(todo)), progress, machine.threads).run(todo)
    else:
        console.print(f"all {len(plan.runs)} runs are finished already", highlight=False)
    states: dict[str, int] = {}
    for run in plan.runs:
        state = run.folder.state()
        states[state] = states.get(state, 0) + 1
    return StudyResult(out, states, len(todo), plan.notes)


@dataclass(frozen=True)
class _Machines:
    """The machine of each run: a run that is resumed keeps its number of threads, on which the last bits depend."""

    machine: Machine
    keep_threads: bool

    def __call__(self, run: PlannedRun) -> Machine:
        threads = self.machine.threads
        if self.keep_threads and (run.folder.checkpoints / "last.ckpt").exists():
            threads = run.folder.environment().get("threads", threads)
        return Machine(
            device=self.machine.device,
            precision=run.config.precision,
            threads=threads,
            workers=self.machine.workers,
        )


def _announce(console: Console, plan: Plan, todo: int, jobs: int, machine: Machine) -> None:
    precision = ", ".join(sorted({run.config.precision for run in plan.runs}))
    text = f"{todo} of {len(plan.runs)} runs to train, {jobs} at a time on {machine.device} ({precision})"
    console.print(f"{text}, {machine.threads} thread(s) each", highlight=False)


def _resolved(study: StudyConfig, plan: Plan, out: Path) -> dict[str, Any]:
    """The content of ``study.yaml``; ``created`` stays that of the first call."""
    from mixlab.studies.configuration import load_yaml

    path = out / "study.yaml"
    created = load_yaml(path).get("created") if path.exists() else None
    labels = list(dict.fromkeys(run.config.label for run in plan.runs))
    return {
        **to_plain(study),
        "seeds": study.seed_list,
        "folds": study.data[0].folds,
        "labels": labels,
        "runs": [
            {"label": run.config.label, "seed": run.config.seed, "fold": run.config.fold, "folder": run.folder.name}
            for run in plan.runs
        ],
        "notes": plan.notes,
        "created": created or now(),
    }
