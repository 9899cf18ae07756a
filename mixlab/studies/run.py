"""One run, in the process that trains it."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mixlab.errors import UserError
from mixlab.studies.backends import describe_choices, fallback_events
from mixlab.studies.environment import describe_environment, peak_memory_mb
from mixlab.studies.examples import example_images
from mixlab.studies.mask_examples import Chosen, choose_cases, example_masks
from mixlab.studies.plan import FROZEN, PlannedRun, build_model, import_hashes, is_frozen_at_random
from mixlab.studies.run_config import kernel_of, mixer_parts, part_kernel
from mixlab.studies.run_folder import RunFolder, now
from mixlab.studies.user_files import import_files
from mixlab.training.checkpoint import LAST, load_best, read_resume
from mixlab.training.checks import input_size
from mixlab.training.closed_form import is_fitted_at_once
from mixlab.training.determinism import INITIAL_WEIGHTS, reseed
from mixlab.training.fit import FitResult, Listener, evaluate, fit, ignore
from mixlab.training.guard import Diverged
from mixlab.training.machine import Machine
from mixlab.training.mask_scores import MaskScores
from mixlab.training.segment import segment

Events = list[dict[str, str]]


@dataclass(frozen=True)
class Prepared:
    """A run's data and model, ready to train."""

    images: Any
    model: torch.nn.Module
    costs: dict[str, int | None]
    events: Events


def train_run(run: PlannedRun, machine: Machine, listen: Listener = ignore) -> None:
    """Train, or go on training, a run, and write its folder. The caller holds the folder's lock.

    Args:
        listen: called with dicts of ``kind`` ``batch`` or ``epoch`` while it trains.

    Raises:
        UserError: the data or the user's files changed since the run was planned, or the files cannot be imported.
    """
    folder, config = run.folder, run.config
    torch.set_num_threads(machine.threads)
    _check_imports(run)
    import_files(config.imports)
    folder.set_status("running", message="", started=now())
    folder.write_json("environment.json", describe_environment(machine))
    prepared = _prepare(run)
    resume = read_resume(folder.checkpoints)
    folder.keep_metrics(resume.epoch if resume else 0)

    def on_epoch(record: dict[str, Any]) -> None:
        epochs, best = record["epochs"], record["best"]
        folder.add_metrics({k: v for k, v in record.items() if k not in ("epochs", "best")})
        folder.set_status("running", epoch=record["epoch"], epochs=epochs, best=best)
        listen({"kind": "epoch", **record})

    try:
        result = fit(
            prepared.model,
            prepared.images.card,
            prepared.images.splits,
            config.recipe,
            seed=config.seed,
            folder=folder.checkpoints,
            machine=machine,
            on_epoch=on_epoch,
            on_batch=lambda record: listen({"kind": "batch", **record}),
        )
    except Diverged as problem:
        _record_choices(folder)
        _record_divergence(folder, problem)
        return
    _finish(run, machine, prepared, result)


def _check_imports(run: PlannedRun) -> None:
    for path, planned, found in zip(run.config.imports, run.imports, import_hashes(run.config), strict=True):
        if found != planned:
            raise UserError(f"import {path}: changed since this run was planned, try the same command again")


def _prepare(run: PlannedRun) -> Prepared:
    from mixlab.data import open_data

    config = run.config
    images = open_data(config.data)
    if images.fingerprint != run.fingerprint:
        raise UserError(f"data {config.data.name}: changed since this run was planned, try the same command again")
    run.folder.write_json("data_card.json", {**images.card.to_dict(), "fingerprint": images.fingerprint})
    if config.model.pretrained is not None and config.hash(images.fingerprint) != run.folder.config()["hash"]:
        source = config.model.pretrained
        raise UserError(f"weights {source}: changed since this run was planned, try the same command again")
    reseed(config.seed, INITIAL_WEIGHTS)
    size = input_size(config.recipe, images.card)
    model = build_model(config, images.card, size)
    events = [dict(event) for event in (*images.events, *model.events)]
    events += _grid_events(model, size)
    events += _extension_events(model)
    if config.recipe.flips and not images.card.flips:
        events.append({"kind": "recipe", "message": "flips were asked for, but the data set's card allows none"})
    if is_fitted_at_once(model):
        message = f"{config.model.name} is fitted to the training split at once: the recipe's steps are not taken"
        events.append({"kind": "recipe", "message": message})
    elif is_frozen_at_random(config):
        events.append({"kind": "recipe", "message": FROZEN})
    return Prepared(images, model, _model_costs(model, size, events), events)


def _extension_events(model: Any) -> Events:
    """How many parameters extensions of the model add."""
    from mixlab.analysis.cost import added_parameters

    added = [f"{name} {count:,}" for name, count in added_parameters(model).items()]
    return [{"kind": "added parameters", "message": f"extensions add parameters: {', '.join(added)}"}] if added else []


def _model_costs(model: Any, size: tuple[int, ...], events: Events) -> dict[str, int | None]:
    """Parameters and MACs of one image; a user's mixer that does not state its cost leaves the MACs unknown."""
    from mixlab.analysis.cost import model_cost

    parameters = sum(p.numel() for p in model.parameters())
    try:
        cost = model_cost(model, size)
    except NotImplementedError as error:
        events.append({"kind": "cost", "message": str(error)})
        return {"parameters": parameters, "macs": None, "macs_needed": None, "macs_dense": None}
    macs = {"macs": cost.macs_computed, "macs_needed": cost.macs_needed, "macs_dense": cost.macs_dense}
    return {"parameters": parameters, **macs}


def _grid_events(model: Any, size: tuple[int, ...]) -> Events:
    """A note for each stage whose grid is smaller than its mixer's kernel: there the mixer reaches everywhere."""
    events = []
    for stage, (config, grid) in enumerate(zip(model.config.stages, model.stage_sizes(size), strict=True), start=1):
        for kernel in dict.fromkeys(filter(None, map(part_kernel, config.mixers))):
            kernels = kernel if isinstance(kernel, tuple) else (kernel,) * len(grid)
            if any(k > n for k, n in zip(kernels, grid, strict=True)):
                shape = " x ".join(map(str, grid))
                message = f"the kernel ({kernel}) is larger than the grid ({shape}) of stage {stage}"
                events.append({"kind": "kernel", "message": message})
    return events


def _record_choices(folder: RunFolder) -> Events:
    """Add to ``environment.json`` which backends computed this run; returns what is worth an event."""
    choices = describe_choices()
    folder.write_json("environment.json", {**folder.environment(), "local_attention": choices})
    return fallback_events(choices)


def _record_divergence(folder: RunFolder, problem: Diverged) -> None:
    best = folder.status().get("best")
    record = {"step": problem.step, "epoch": problem.epoch, "tensor": problem.tensor, "best": best}
    folder.set_status("diverged", message=str(problem), diverged=record)


def _finish(run: PlannedRun, machine: Machine, prepared: Prepared, result: FitResult) -> None:
    """Predict validation and test split with the best weights, once, and write the summary."""
    folder, images = run.folder, prepared.images
    began = time.perf_counter()
    load_best(folder.checkpoints, prepared.model)
    found = {}
    for split in ("val", "test"):
        if split in images.splits:
            cases = images.splits[split]
            arrays, found[split] = evaluate(
                prepared.model, images.card, cases, recipe=run.config.recipe, machine=machine
            )
            folder.write_predictions(split, cases.ids, arrays)
            if split == "test":
                _keep_examples(run, machine, prepared, arrays)
    if result.stopped_early:
        message = f"stopped early after epoch {result.epochs}; the best was epoch {result.best.epoch}"
        prepared.events.append({"kind": "early stopping", "message": message})
    prepared.events.extend(_record_choices(folder))
    summary = {
        **_what(run),
        **prepared.costs,
        **_measured(folder, machine, time.perf_counter() - began),
        "best_epoch": result.best.epoch,
        "epochs": result.epochs,
        "steps": result.steps,
        "val": found.get("val"),
        "test": found.get("test"),
        "events": prepared.events,
    }
    folder.write_json("summary.json", summary)
    folder.set_status("finished", epoch=result.epochs, best=result.best.to_plain())
    if run.config.stand_ins:  # a published table has a hundred cells, and nobody goes on from a trial of one
        (folder.checkpoints / LAST).unlink(missing_ok=True)


def _keep_examples(run: PlannedRun, machine: Machine, prepared: Prepared, arrays: dict[str, Any]) -> None:
    """Keep test images for the report; of masks also truth and prediction, and the worst and best cases."""
    card, split = prepared.images.card, prepared.images.splits["test"]
    if card.task != "segmentation":
        images, ids = example_images(split)
        run.folder.write_examples(ids, {"images": images})
        return
    kept = choose_cases(MaskScores.of(arrays, split.ids).dice())
    chosen = Chosen(split, [index for index, _ in kept])
    masks = segment(prepared.model, card, chosen, recipe=run.config.recipe, machine=machine)
    kinds = {"kept": np.array([why for _, why in kept])}
    run.folder.write_examples(chosen.ids, {**example_masks(chosen, card, (mask for _, mask in masks)), **kinds})


def _what(run: PlannedRun) -> dict[str, Any]:
    model = run.config.model
    mixer = "+".join(p.name for p in mixer_parts(model.token_mixer)) if model.token_mixer is not None else None
    return {
        "label": run.config.label,
        "mixer": mixer,
        "kernel_size": kernel_of(model),
        "model": model.name,
        "stages": model.stages,
        "seed": run.config.seed,
        "fold": run.config.fold,
    }


def _measured(folder: RunFolder, machine: Machine, evaluation: float) -> dict[str, Any]:
    seconds = [line["seconds"] for line in folder.metrics()]
    return {
        "seconds_per_epoch": statistics.median(seconds),
        "total_seconds": sum(seconds) + evaluation,
        "peak_memory_mb": peak_memory_mb(machine.device),
        "device": machine.device,
    }
