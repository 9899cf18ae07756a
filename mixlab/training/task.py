"""The Lightning module: a model, its loss and what is done with a batch. Classification and multi-label."""

from __future__ import annotations

from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mixlab.training.augment import Augment, Normalise
from mixlab.training.averaging import averaged
from mixlab.training.checks import head_dropouts
from mixlab.training.determinism import STEP, reseed
from mixlab.training.guard import Diverged, Guard
from mixlab.training.metrics import split_metrics
from mixlab.training.optimiser import freeze_backbone, make_optimizer
from mixlab.training.recipe import Recipe
from mixlab.training.schedule import make_scheduler


class ImageTask(pl.LightningModule):
    """Trains ``model`` to classify images.

    Args:
        model: maps ``(B, C, *spatial)`` to logits ``(B, K)``.
        card: the data set's card (task, classes, mean, std, flips, spatial_dims).
        recipe: how to train.
        seed: the run's seed.
        train_targets: targets of the training split, for the class weights; None for a task that only predicts.
        epochs, steps_per_epoch: length of the training, for the schedule.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        card: Any,
        recipe: Recipe,
        *,
        seed: int = 0,
        train_targets: NDArray[Any] | None = None,
        epochs: int = 1,
        steps_per_epoch: int = 1,
    ) -> None:
        super().__init__()
        self.model = model
        self.kind: Literal["classification", "multilabel"] = card.task
        self.recipe, self.seed = recipe, seed
        self.epochs, self.steps_per_epoch = epochs, steps_per_epoch
        self.normalise = Normalise(card.mean, card.std, card.spatial_dims)
        self.augment = Augment(recipe.affine_std, card.flips if recipe.flips else ())
        self.register_buffer(
            "class_weights", _class_weights(card, recipe, train_targets) if train_targets is not None else None
        )
        if recipe.head_dropout is not None:
            for layer in head_dropouts(model):
                layer.p = recipe.head_dropout
        if recipe.freeze_backbone:
            freeze_backbone(model)
        self.average = averaged(model, recipe.ema_decay) if recipe.ema_decay is not None else None
        self.guard = Guard()
        self.train_loss: list[Tensor] = []
        self.last_rate = 0.0
        self.validation: dict[str, Any] = {}
        self._outputs: list[dict[str, Tensor]] = []

    @property
    def evaluated(self) -> nn.Module:
        """The model that is validated and saved as best: the moving average when there is one."""
        return self.model if self.average is None else self.average.module

    @property
    def _scaled(self) -> bool:
        """Whether a loss scaler is at work."""
        return str(self.trainer.precision) == "16-mixed"

    def set_modes(self) -> None:
        """Training mode for what learns, evaluation mode for a frozen backbone and for the average."""
        self.train()
        if self.recipe.freeze_backbone:
            self.model.eval()
            self.model.head.train()  # type: ignore[union-attr]
        if self.average is not None:
            self.average.eval()

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(self.model, self.recipe, fused=not self._scaled)
        scheduler = make_scheduler(optimizer, self.recipe, epochs=self.epochs, steps_per_epoch=self.steps_per_epoch)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def prepare(self, images: Tensor, *, augment: bool = False) -> Tensor:
        """Augment and normalise a batch of images in [0, 1], in full precision whatever the training's precision."""
        with torch.autocast(images.device.type, enabled=False):
            images = images.float()
            return self.normalise(self.augment(images) if augment else images)

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        reseed(self.seed, STEP, self.current_epoch, batch_idx)
        images, targets, _ = batch
        logits = self.model(self.prepare(images, augment=True))
        loss = self.loss(logits.float(), targets)
        self.guard.add_loss(loss)
        self.train_loss.append(loss.detach())
        return loss

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss that is trained: weighted and smoothed as the recipe says."""
        if self.kind == "multilabel":
            return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=self.class_weights)
        return F.cross_entropy(logits, targets, weight=self.class_weights, label_smoothing=self.recipe.label_smoothing)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.last_rate = max(group["lr"] for group in optimizer.param_groups)
        self.guard.check(self.model, step=self.global_step, epoch=self.current_epoch + 1, gradients=not self._scaled)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self.average.update_parameters(self.model)

    def on_train_epoch_start(self) -> None:
        self.train_loss = []

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        self._outputs.append(self.predict_step(batch, batch_idx))

    def on_validation_epoch_start(self) -> None:
        self._outputs = []

    def on_validation_epoch_end(self) -> None:
        found = collect(self._outputs)
        self._outputs = []
        if not np.isfinite(found["probabilities"]).all():
            raise Diverged(self.global_step, self.current_epoch + 1, "validation output")
        self.validation = split_metrics(found["probabilities"], found["targets"], self.kind, found["loss"])

    def predict_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Probabilities, and the plain loss (no weights, no smoothing), of each image of a batch."""
        images, targets, _ = batch
        logits = self.evaluated(self.prepare(images)).float()
        if self.kind == "multilabel":
            losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)
            probabilities = logits.sigmoid()
        else:
            losses = F.cross_entropy(logits, targets, reduction="none")
            probabilities = logits.softmax(dim=1)
        return {"probabilities": probabilities.cpu(), "targets": targets.cpu(), "losses": losses.cpu()}


def collect(outputs: list[dict[str, Tensor]]) -> dict[str, Any]:
    """Join the outputs of batches: ``probabilities`` (N, K), ``targets`` and the mean ``loss``."""
    return {
        "probabilities": torch.cat([o["probabilities"] for o in outputs]).numpy(),
        "targets": torch.cat([o["targets"] for o in outputs]).numpy(),
        "loss": float(torch.cat([o["losses"] for o in outputs]).double().mean()),
    }


def _class_weights(card: Any, recipe: Recipe, targets: NDArray[Any]) -> Tensor | None:
    """Weights of the classes, or of the positives of each label; 1 for what does not occur in the training split."""
    if recipe.class_weights == "none":
        return None
    if card.task == "multilabel":
        positives = targets.sum(axis=0).astype(np.float64)
        weights = np.where(positives > 0, (len(targets) - positives) / np.maximum(positives, 1), 1.0)
    else:
        counts = np.bincount(targets, minlength=len(card.classes)).astype(np.float64)
        weights = np.where(counts > 0, len(targets) / (len(counts) * np.maximum(counts, 1)), 1.0)
    return torch.from_numpy(weights).float()
