"""From a study to the runs that are to be trained: everything is opened, checked and built once before any training."""

from __future__ import annotations

import dataclasses
import re
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixlab.errors import Quoted, UserError, expected
from mixlab.studies.configuration import to_plain
from mixlab.studies.run_config import RunConfig, file_hash
from mixlab.studies.run_folder import DONE, RunFolder
from mixlab.training.checks import check_recipe, input_size, shortest
from mixlab.training.machine import choose_precision
from mixlab.training.recipe import Recipe

#: Bytes kept free beside the checkpoints: predictions, logs, report.
SPARE_BYTES = 50 * 2**20

#: What is said of masks that are trained with the recipe for images of one class each.
FOR_CLASSES = (
    "masks are trained with label smoothing and class weights; `recipe: segmentation` is the study's for masks"
)

#: What is said of a recipe that trains the head alone.
FROZEN = "the backbone is frozen at its random initialisation: no weights were loaded"


@dataclass(frozen=True)
class PlannedRun:
    """A run of the grid, its folder, fingerprint and task of its data, and the hashes of the user's files."""

    config: RunConfig
    folder: RunFolder
    fingerprint: str
    imports: tuple[str, ...] = ()
    task: str = "classification"

    @property
    def done(self) -> bool:
        """Whether it has a result already."""
        return self.folder.state() in DONE


@dataclass(frozen=True)
class Plan:
    """The runs of a study, each once, what is worth saying of the grid, and what the data had to tell."""

    runs: list[PlannedRun]
    notes: list[str]
    events: list[str] = field(default_factory=list)


def make_plan(cells: Sequence[RunConfig], out: Path, device: str) -> Plan:
    """Open all data, name every run's folder, and check what is not finished yet.

    Raises:
        UserError: data that cannot be read or do not fit the task, or a model of the grid that cannot be built or
            cannot take these images (all such models are named in one message), or two runs that the report could not
            tell apart.
    """
    opened: dict[str, Any] = {}
    runs: dict[str, PlannedRun] = {}
    named: dict[tuple[str, int, int | None], RunConfig] = {}
    notes = []
    for cell in cells:
        _check_imports(cell.imports)
        config = dataclasses.replace(cell, precision=choose_precision(cell.precision, device))
        images = _open_once(opened, config)
        config = dataclasses.replace(config, recipe=shortest(config.recipe, images.card))
        digest = config.hash(images.fingerprint)
        fold = "" if config.fold is None else f"-f{config.fold}"
        name = f"{folder_name(config.label)}-s{config.seed}{fold}-{digest}"
        if digest in runs:
            notes.append(f"{name} appears twice in the grid and is trained once")
            continue
        _check_label(named, config)
        folder = _folder(out / "runs", digest, name)
        runs[digest] = PlannedRun(config, folder, images.fingerprint, import_hashes(config), images.card.task)
    if any(is_frozen_at_random(run.config) for run in runs.values()):
        notes.append(FROZEN)
    if any(run.task == "segmentation" and _is_for_classes(run.config.recipe) for run in runs.values()):
        notes.append(FOR_CLASSES)
    notes += dict.fromkeys(f"stand-in: {said}" for run in runs.values() for said in run.config.stand_ins)
    _check_models([run for run in runs.values() if not run.done], opened)
    events = [event["message"] for images in opened.values() for event in images.events]
    return Plan(list(runs.values()), notes, list(dict.fromkeys(events)))


def is_frozen_at_random(config: RunConfig) -> bool:
    """The head alone is trained, on a backbone that nothing was loaded into."""
    return config.recipe.freeze_backbone and config.model.pretrained is None


def _is_for_classes(recipe: Recipe) -> bool:
    """The recipe has what the default one has for images of one class each."""
    default = Recipe()
    return (recipe.class_weights, recipe.label_smoothing) == (default.class_weights, default.label_smoothing)


def import_hashes(config: RunConfig) -> tuple[str, ...]:
    """Hashes of the user's files as they are now."""
    return tuple(file_hash(Path(path)) for path in config.imports)


def _folder(runs: Path, digest: str, name: str) -> RunFolder:
    """The run's folder: one that exists, under whatever label, as a label changes when an axis is added to a grid."""
    there = [RunFolder(path) for path in sorted(runs.glob(f"*-{digest}"))]
    return min(there, key=lambda folder: folder.state() not in DONE, default=RunFolder(runs / name))


def folder_name(label: str) -> str:
    """A label as a file system takes it: no path separators, not too long; the hash keeps folders apart."""
    return re.sub(r"[^\w.+=@,-]+", "_", label)[:80]


def build_model(config: RunConfig, card: Any, size: Sequence[int], *, weights: bool = True) -> Any:
    """The run's model for this data, with the weights that it starts from, or that the generators' present state gives.

    Args:
        size: size of the images, for parts that live on a grid.
        weights: load what ``model.pretrained`` names; False where trained weights follow.
    """
    model = config.model
    if model.image_size is None:
        # Known from the data, so it is no choice of the user's and no part of the hash.
        model = dataclasses.replace(model, image_size=tuple(size))
    make = model.create if weights else model.build
    return make(len(card.classes), card.channels, card.spatial_dims)


def check_folder(out: Path, need_bytes: int = SPARE_BYTES) -> None:
    """Make the output folder and check that it can be written and has room.

    Raises:
        UserError: it cannot be written, or fewer than ``need_bytes`` are free.
    """
    probe = out / f".probe-{uuid.uuid4().hex}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"probe")
        probe.unlink()
    except OSError as error:
        got = Quoted(f"{out} ({error.strerror})")
        raise expected("output folder", "a folder that can be written", got, "--out DIR") from None
    free = shutil.disk_usage(out).free
    if free < need_bytes:
        raise expected(
            "output folder", f"{need_bytes / 2**20:.0f} MiB of free space in {out}", Quoted(f"{free / 2**20:.0f} MiB"),
            "--out DIR on another disk",
        )  # fmt: skip


def _check_imports(imports: Sequence[str]) -> None:
    """Refuse two files of one name, of which the run folder could keep one only."""
    first: dict[str, Path] = {}
    for path in (Path(file).resolve() for file in imports):
        other = first.setdefault(path.name, path)
        if other != path:
            raise expected("imports", "files of different names", Quoted(f"{other} and {path}"), "to rename one")


def _check_label(named: dict[tuple[str, int, int | None], RunConfig], config: RunConfig) -> None:
    """Refuse a second run of the same label, seed and fold: the report knows runs by these."""
    other = named.setdefault((config.label, config.seed, config.fold), config)
    if other is config:
        return
    old, new = _flat(to_plain(other)), _flat(to_plain(config))
    changed = [f"{k} {old.get(k)!r} and {new.get(k)!r}" for k in {**old, **new} if old.get(k) != new.get(k)]
    seed = f"seed {config.seed}" + ("" if config.fold is None else f", fold {config.fold}")
    got = Quoted("two that differ in " + (", ".join(changed) or "their data"))
    raise expected(f"label {config.label} ({seed})", "one run", got, "one study each")


def _flat(plain: Any, where: str = "") -> dict[str, Any]:
    """Nested mappings as one, by dotted keys."""
    if not isinstance(plain, dict):
        return {where: plain}
    return {k: v for key, value in plain.items() for k, v in _flat(value, f"{where}.{key}".lstrip(".")).items()}


def _open_once(opened: dict[str, Any], config: RunConfig) -> Any:
    from mixlab.data import open_data

    key = repr(to_plain(config.data))
    if key not in opened:
        opened[key] = open_data(config.data)
    return opened[key]


def _check_models(runs: Sequence[PlannedRun], opened: dict[str, Any]) -> None:
    """Build each model once and send one blank image through it, so that a bad one costs no training."""
    parameters: dict[str, int] = {}
    faults: list[str] = []
    need = SPARE_BYTES
    for run in runs:
        images = opened[repr(to_plain(run.config.data))]
        card, size = images.card, input_size(run.config.recipe, images.card)
        shape = (len(card.classes), card.channels, card.task, card.overlapping, size)
        key = repr((to_plain(run.config.model), run.config.recipe, shape))
        if key not in parameters:
            parameters[key] = _try_model(run, card, size, faults.append)
        # last.ckpt holds weights and two moments, best.ckpt the weights; one of them exists twice while it is replaced.
        need += (4 if run.config.stand_ins else 7 * 4) * parameters[key]  # stand-ins keep the best weights alone
    if faults:
        raise UserError("\n".join(dict.fromkeys(faults)))
    if runs:
        check_folder(runs[0].folder.path.parent.parent, need)


def _try_model(run: PlannedRun, card: Any, size: tuple[int, ...], fault: Callable[[str], None]) -> int:
    import torch

    try:
        model = build_model(run.config, card, size).eval()
        check_recipe(run.config.recipe, card, model)
        model.stage_sizes(size)  # says in words that an image is too small
        with torch.no_grad():
            model(torch.zeros(1, card.channels, *size))
    except UserError as error:
        fault(f"{run.config.label}: {error}")
        return 0
    except (RuntimeError, TypeError, ValueError) as error:
        shape = " x ".join(map(str, size))
        said = next(iter(str(error).splitlines()), type(error).__name__)
        fault(f"{run.config.label}: expected a model that takes images of {shape}, got {said}")
        return 0
    return sum(p.numel() for p in model.parameters())
