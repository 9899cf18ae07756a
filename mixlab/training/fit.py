"""The training of one run, and predictions with its best weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import nn
from torch.utils.data import Dataset

from mixlab.training.checkpoint import STATE_KEY, Best, read_resume, save_best, save_last
from mixlab.training.closed_form import fit_at_once, is_fitted_at_once
from mixlab.training.loaders import eval_loader, train_loader
from mixlab.training.machine import Machine
from mixlab.training.recipe import Recipe
from mixlab.training.selection import SELECTS
from mixlab.training.task import ImageTask, collect
from mixlab.training.trainer import make_trainer, quiet_lightning, run_batches

Listener = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class FitResult:
    """How a training ended: epochs done, optimiser steps, the best epoch, and whether it stopped early."""

    epochs: int
    steps: int
    best: Best
    stopped_early: bool


def ignore(_: dict[str, Any]) -> None:
    """A listener that does nothing."""


def make_task(model: nn.Module, card: Any, recipe: Recipe, **options: Any) -> ImageTask:
    """The task of a data set; ``options`` are those of :class:`mixlab.training.task.ImageTask`."""
    if card.task == "segmentation":
        from mixlab.training.segmentation import SegmentationTask

        return SegmentationTask(model, card, recipe, **options)
    from mixlab.training.classification import ClassificationTask

    return ClassificationTask(model, card, recipe, **options)


class EpochEnd(Checkpoint):
    """What happens when an epoch has been trained and validated, in an order that survives a kill anywhere.

    1. The epoch's line of metrics goes to the listener. 2. ``best.ckpt``, if the epoch is the best. 3. ``last.ckpt``.
    Only the third makes the epoch count: after a kill before it the epoch is trained again, to the same bits, and the
    metrics beyond the checkpoint are dropped.
    """

    def __init__(
        self, folder: Path, recipe: Recipe, epochs: int, metric: str, on_epoch: Listener, on_batch: Listener
    ) -> None:
        self.folder, self.recipe, self.epochs = folder, recipe, epochs
        self.on_epoch, self.on_batch = on_epoch, on_batch
        self.best = Best(metric)
        self.epoch = 0
        self._began = self._told = 0.0

    @property
    def state_key(self) -> str:
        return STATE_KEY

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "best": self.best.to_plain()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epoch, self.best = state_dict["epoch"], Best.of(state_dict["best"])

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if now - self._told < 0.25:  # reading the loss waits for the device
            return
        self._told = now
        loss = float(outputs["loss"]) * trainer.accumulate_grad_batches
        self.on_batch(
            {
                "epoch": trainer.current_epoch + 1,
                "epochs": self.epochs,
                "batch": batch_idx + 1,
                "batches": int(trainer.num_training_batches),
                "loss": loss,
            }
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, ImageTask)
        task = pl_module
        self.epoch = trainer.current_epoch + 1
        found = task.validation
        record = {
            "epoch": self.epoch,
            "step": trainer.global_step,
            "lr": task.last_rate,
            "train/loss": float(torch.stack(task.train_loss).mean()),
            **{f"val/{name}": found[name] for name in task.followed},
            "seconds": time.perf_counter() - self._began,
        }
        better = self.best.offer(self.epoch, found[self.best.metric])
        self.on_epoch({**record, "epochs": self.epochs, "best": self.best.to_plain()})
        if better:
            save_best(self.folder, task.evaluated, epoch=self.epoch, metrics=found)
        save_last(trainer, self.folder)
        if stops(self.recipe, self.epoch, self.best):
            trainer.should_stop = True


def stops(recipe: Recipe, epoch: int, best: Best) -> bool:
    """Whether early stopping ends the training after ``epoch``."""
    return recipe.early_stopping is not None and epoch - best.epoch >= recipe.early_stopping


def fit(
    model: nn.Module,
    card: Any,
    splits: Mapping[str, Any],
    recipe: Recipe,
    *,
    seed: int,
    folder: Path,
    machine: Machine | None = None,
    on_epoch: Listener = ignore,
    on_batch: Listener = ignore,
) -> FitResult:
    """Train ``model`` on ``splits["train"]``, choosing the best epoch on ``splits["val"]``.

    Resumes from ``folder/last.ckpt`` when it is there. Afterwards ``folder/best.ckpt`` holds the best weights, which
    :func:`mixlab.training.checkpoint.load_best` loads.

    Args:
        model: freshly built, on the CPU; its initial weights are of no account when training resumes.
        card: the data set's card.
        splits: at least ``train`` and ``val``.
        seed: seed of order, augmentation and dropout.
        folder: where the checkpoints lie; must exist.
        on_epoch: called with the metrics of each epoch before its checkpoint is written.
        on_batch: called at most four times a second with the loss.

    Raises:
        Diverged: a loss or gradient was not finite.
    """
    machine = machine or Machine()
    if is_fitted_at_once(model):
        best, line = fit_at_once(model, card, splits, recipe, folder, machine)
        on_epoch({**line, "epochs": 1, "best": best.to_plain()})
        return FitResult(1, 0, best, False)
    resume = read_resume(folder)
    train = train_loader(splits["train"], card, recipe, machine, seed=seed, epoch=resume.epoch if resume else 0)
    val = eval_loader(splits["val"], recipe, machine)
    steps_per_epoch = -(-len(train) // recipe.accumulate)
    epochs = recipe.epochs_for(steps_per_epoch)
    if resume and (resume.epoch >= epochs or stops(recipe, resume.epoch, resume.best)):
        return FitResult(resume.epoch, resume.step, resume.best, resume.epoch < epochs)
    task = make_task(
        model, card, recipe, seed=seed, train=splits["train"], epochs=epochs, steps_per_epoch=steps_per_epoch
    )
    task.set_modes()
    callback = EpochEnd(folder, recipe, epochs, SELECTS[card.task], on_epoch, on_batch)
    with quiet_lightning():
        trainer = make_trainer(
            machine,
            max_epochs=epochs,
            callbacks=[callback],
            enable_checkpointing=True,
            accumulate_grad_batches=recipe.accumulate,
            gradient_clip_val=recipe.clip_norm,
        )
        trainer.fit(task, train, val, ckpt_path=resume.path if resume else None)
    return FitResult(callback.epoch, trainer.global_step, callback.best, callback.epoch < epochs)


def evaluate(
    model: nn.Module, card: Any, split: Any, *, recipe: Recipe, machine: Machine | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What ``model`` says of each case of a split, in the split's order, and the metrics.

    Returns:
        Arrays by name, as a run's ``predictions_<split>.npz`` has them, and the metrics of
        :func:`mixlab.training.metrics.split_metrics`, or of :class:`mixlab.training.mask_scores.MaskScores` with the
        ``loss`` and the ``hd95_unit``: ``mm`` where the spacing of all cases is known, else ``pixels``.
    """
    if card.task == "segmentation":
        from mixlab.training.segment import evaluate_masks

        return evaluate_masks(model, card, split, recipe=recipe, machine=machine)
    found = predict(model, card, split, batch_size=recipe.batch_size, machine=machine)
    metrics = make_task(model, card, Recipe()).metrics(found)
    return {"targets": found["targets"], "probabilities": found["probabilities"]}, metrics


def predict(
    model: nn.Module, card: Any, split: Dataset[Any], *, batch_size: int, machine: Machine | None = None
) -> dict[str, Any]:
    """Probabilities ``(N, K)``, targets, losses and mean loss of a model that classifies, in the split's order."""
    return collect(run_batches(make_task(model, card, Recipe(batch_size=batch_size)), split, machine or Machine()))
