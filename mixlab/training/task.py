"""The Lightning module: a model and what is done with a batch; each kind of task in a file of its own."""

from __future__ import annotations

from typing import Any, ClassVar

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn

from mixlab.training.augment import Augment, Normalise
from mixlab.training.averaging import averaged
from mixlab.training.checks import head_dropouts
from mixlab.training.crops import outside_of_masks
from mixlab.training.determinism import STEP, reseed
from mixlab.training.guard import Diverged, Guard
from mixlab.training.optimiser import freeze_backbone, make_optimizer
from mixlab.training.recipe import Recipe
from mixlab.training.schedule import make_scheduler


class ImageTask(pl.LightningModule):
    """Trains ``model`` on images; a subclass says with which loss and metrics.

    Args:
        model: maps ``(B, C, *spatial)`` to logits.
        card: the data set's card (task, classes, mean, std, flips, spatial_dims).
        recipe: how to train.
        seed: the run's seed.
        train: the training split, for what the loss needs of it; None for a task that only predicts.
        epochs, steps_per_epoch: length of the training, for the schedule.
    """

    class_weights: Tensor | None

    #: Validation metrics that a run's history has, of those of :meth:`metrics`.
    followed: ClassVar[tuple[str, ...]]
    #: The output of :meth:`predict_step` that must be finite.
    finite: ClassVar[str]

    def __init__(
        self,
        model: nn.Module,
        card: Any,
        recipe: Recipe,
        *,
        seed: int = 0,
        train: Any = None,
        epochs: int = 1,
        steps_per_epoch: int = 1,
    ) -> None:
        super().__init__()
        self.model = model
        self.card = card
        self.recipe, self.seed = recipe, seed
        self.epochs, self.steps_per_epoch = epochs, steps_per_epoch
        self.normalise = Normalise(card.mean, card.std, card.spatial_dims)
        self.augment = Augment(recipe.affine_std, card.flips if recipe.flips else (), outside_of_masks(card))
        self.register_buffer("class_weights", self.weights(train) if train is not None else None)
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

    # What a kind of task says

    def weights(self, train: Any) -> Tensor | None:
        """Weights of the classes ``(K,)`` from the training split; None for none."""
        raise NotImplementedError

    def training_loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch of images in [0, 1], weighted and smoothed as the recipe says, a scalar."""
        raise NotImplementedError

    def predict_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """What is known of each case of a batch, on the CPU; ``losses`` (B,) are plain: no weights, no smoothing."""
        raise NotImplementedError

    def metrics(self, found: dict[str, Any]) -> dict[str, Any]:
        """Metrics of a split from what :func:`collect` made of its batches."""
        raise NotImplementedError

    # What all have in common

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

    def prepare(self, images: Tensor) -> Tensor:
        """Normalise a batch of images in [0, 1], in full precision whatever the training's precision."""
        with torch.autocast(images.device.type, enabled=False):
            return self.normalise(images.float())

    def prepare_training(self, images: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Augment a batch, with its masks, and normalise it."""
        with torch.autocast(images.device.type, enabled=False):
            images, masks = self.augment(images.float(), masks)
            return self.normalise(images), masks

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        reseed(self.seed, STEP, self.current_epoch, batch_idx)
        loss = self.training_loss(batch[0], batch[1])
        self.guard.add_loss(loss)
        self.train_loss.append(loss.detach())
        return loss

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
        if not np.isfinite(found[self.finite]).all():
            raise Diverged(self.global_step, self.current_epoch + 1, "validation output")
        self.validation = self.metrics(found)


def collect(outputs: list[dict[str, Tensor]]) -> dict[str, Any]:
    """Join the outputs of batches as arrays, the cases along the first axis, and the mean ``loss``."""
    joined = {name: torch.cat([o[name] for o in outputs]).numpy() for name in outputs[0]}
    return {**joined, "loss": float(joined["losses"].astype(np.float64).mean())}
