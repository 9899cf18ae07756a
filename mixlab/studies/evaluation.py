"""Finished runs put to use: metrics on a split, probabilities for image files.

Masks for image files are in :mod:`mixlab.studies.prediction`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlab.data import DataCard, DataConfig, check_pairing, image_files, open_data
from mixlab.data.pairing import default_loss
from mixlab.errors import Quoted, expected
from mixlab.models import ModelConfig
from mixlab.studies.configuration import build, to_plain
from mixlab.studies.plan import build_model
from mixlab.studies.run_config import RunConfig
from mixlab.studies.run_folder import RunFolder, open_run
from mixlab.studies.user_files import import_files
from mixlab.training.checkpoint import BEST, load_best
from mixlab.training.checks import input_size
from mixlab.training.machine import Machine, choose_device
from mixlab.training.recipe import Recipe


@dataclass(frozen=True)
class TrainedRun:
    """A run with its best weights."""

    folder: RunFolder
    config: RunConfig
    card: DataCard
    fingerprint: str
    model: Any


def load_run(path: Path) -> TrainedRun:
    """Open a run folder and load its best weights; the user's files come from the folder's copies.

    Raises:
        UserError: there is no run, or it has no best weights yet.
    """
    folder = open_trained(path)
    plain = folder.config()
    imports = [str(folder.imports / item["file"]) for item in plain["imports"]]
    import_files(imports)
    where = f"{folder.name}/config.yaml"
    config = RunConfig(
        model=build(ModelConfig, plain["model"], where),
        data=build(DataConfig, plain["data"], where),
        recipe=build(Recipe, plain["recipe"], where),
        seed=plain["seed"],
        precision=plain["precision"],
        imports=imports,
        label=plain["label"],
    )
    card = read_card(folder)
    model = build_model(config, card, input_size(config.recipe, card), weights=False)
    load_best(folder.checkpoints, model)
    return TrainedRun(folder, config, card, read_fingerprint(folder), model.eval())


def open_trained(path: Path) -> RunFolder:
    """The run folder at ``path``, its weights not loaded.

    Raises:
        UserError: there is no run, or it has no best weights yet.
    """
    folder = open_run(path)
    if not (folder.checkpoints / BEST).exists():
        raise expected(f"run {folder.name}", "a run with trained weights", folder.state(), "a finished run")
    return folder


def read_card(folder: RunFolder) -> DataCard:
    """The card of the data that a run was trained on."""
    plain = json.loads((folder.path / "data_card.json").read_text())
    plain.pop("fingerprint")
    counts = {name: tuple(values) for name, values in plain.pop("class_counts").items()}
    known = {f.name for f in dataclasses.fields(DataCard)}
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items() if k in known}
    return DataCard(**values, class_counts=counts)


def read_fingerprint(folder: RunFolder) -> str:
    """The fingerprint of the data that a run was trained on."""
    return str(json.loads((folder.path / "data_card.json").read_text())["fingerprint"])


def evaluate_run(
    path: Path, split: str = "test", data: dict[str, Any] | None = None, device: str = "auto"
) -> dict[str, Any]:
    """Metrics of a run's best weights on a split; nothing is written.

    Args:
        path: the run folder.
        split: ``test``, ``val`` or ``train``.
        data: fields of the data configuration to change: another ``root``, or another set of the same classes.
        device: where to compute.

    Returns:
        The metrics of :func:`mixlab.training.fit.evaluate`, with ``data``, ``split``, ``cases`` and
        ``events``: what the data and the device have to tell.

    Raises:
        UserError: no such split, a data set of other classes or channels, or the run's own data set with other content
            or another split.
    """
    from mixlab.training.fit import evaluate

    run = load_run(path)
    config = build(DataConfig, _changed_data(run, data or {}), "evaluate")
    images = open_data(config)
    if config.name == run.config.data.name and images.fingerprint != run.fingerprint:
        got = Quoted("other files, labels or splits: images of the training could be in the test split")
        raise expected(f"data {config.name}", "the content and splits of the run's training", got, "the run's own data")
    if split not in images.splits:
        raise expected("split", f"one of {', '.join(images.splits)}", split, "--split test")
    check_pairing(images.card, run.card.task, default_loss(run.card), run.card.channels)
    input_size(run.config.recipe, images.card)
    if tuple(images.card.classes) != tuple(run.card.classes):
        raise expected(f"data {config.name}", f"the classes {list(run.card.classes)}", list(images.card.classes))
    machine, events = machine_for(run, device)
    # The run's own card: a model is fed with the statistics that it was trained with. Which pixels count is the data's.
    card = dataclasses.replace(run.card, ignore_label=images.card.ignore_label)
    cases = images.splits[split]
    _, metrics = evaluate(run.model, card, cases, recipe=run.config.recipe, machine=machine)
    told = {"data": images.card.name, "split": split, "cases": len(cases), **metrics}
    return {**told, "events": [*map(dict, images.events), *events]}


def predict_files(
    path: Path, files: Sequence[Path], device: str = "auto", tell: Callable[[str], object] = lambda message: None
) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Class names and probabilities ``(N, K)`` of a run's best weights for image files.

    The images get the channels and the size that the run was trained on.

    Args:
        path: the run folder.
        files: image files.
        device: where to compute.
        tell: called with each sentence that the user should know.

    Raises:
        UserError: a segmentation run; files that are missing or cannot be read, all named in one message.
    """
    from mixlab.training.fit import predict

    run = load_run(path)
    if run.card.task == "segmentation":
        raise expected(f"run {run.folder.name}", "a run of a task with classes", run.card.task, "predict_masks")
    split = image_files(files, run.card)
    size, (machine, events) = run.config.recipe.batch_size, machine_for(run, device)
    for message in dict.fromkeys(event["message"] for event in events):
        tell(message)
    return run.card.classes, predict(run.model, run.card, split, batch_size=size, machine=machine)["probabilities"]


def machine_for(run: TrainedRun, device: str) -> tuple[Machine, list[dict[str, str]]]:
    """The machine to use a run on, and a note where a run of a GPU in half precision is used elsewhere."""
    chosen, precision = choose_device(device), run.config.precision
    trained_on = run.folder.environment().get("device", chosen)
    if precision not in ("bf16-mixed", "16-mixed") or chosen == trained_on:
        return Machine(device=chosen, precision=precision), []
    message = f"computed in 32-true on {chosen}; the run was trained in {precision} on {trained_on}"
    return Machine(device=chosen, precision="32-true"), [{"kind": "precision", "message": message}]


def presented_as(run: TrainedRun) -> DataCard:
    """The run's card; without a size where the training cut crops from images as they were, so that these are too."""
    if run.config.recipe.crop_size is None or run.config.data.image_size is not None:
        return run.card
    return dataclasses.replace(run.card, image_size=None)


def _changed_data(run: TrainedRun, changes: dict[str, Any]) -> dict[str, Any]:
    """The run's data configuration with changes; another data set is presented as the run's was."""
    values = {**to_plain(run.config.data), **changes}
    if values["name"] != run.config.data.name:
        shown = {"image_size": to_plain(presented_as(run).image_size), "channels": run.card.channels}
        values |= {key: value for key, value in shown.items() if key not in changes}
    return values
