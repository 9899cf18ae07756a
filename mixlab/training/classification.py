"""The task of images that have one class each, or any number of labels."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mixlab.training.metrics import split_metrics
from mixlab.training.task import ImageTask


class ClassificationTask(ImageTask):
    """Trains a model that maps ``(B, C, *spatial)`` to logits ``(B, K)``."""

    followed: ClassVar[tuple[str, ...]] = ("loss", "accuracy", "balanced_accuracy", "auroc", "macro_f1")
    finite: ClassVar[str] = "probabilities"

    @property
    def multilabel(self) -> bool:
        """Whether each class is a question of its own."""
        return bool(self.card.task == "multilabel")

    def weights(self, train: Any) -> Tensor | None:
        """Weights of the classes, or of the positives of each label; 1 for what does not occur in training."""
        if self.recipe.class_weights == "none":
            return None
        targets = train.targets
        if self.multilabel:
            positives = targets.sum(axis=0).astype(np.float64)
            weights = np.where(positives > 0, (len(targets) - positives) / np.maximum(positives, 1), 1.0)
        else:
            counts = np.bincount(targets, minlength=len(self.card.classes)).astype(np.float64)
            weights = np.where(counts > 0, len(targets) / (len(counts) * np.maximum(counts, 1)), 1.0)
        return torch.from_numpy(weights).float()

    def training_loss(self, images: Tensor, targets: Tensor) -> Tensor:
        prepared, _ = self.prepare_training(images)
        logits = self.model(prepared).float()
        if self.multilabel:
            return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=self.class_weights)
        # a module in double precision has its weights in double
        weights = None if self.class_weights is None else self.class_weights.to(logits.dtype)
        return F.cross_entropy(logits, targets, weight=weights, label_smoothing=self.recipe.label_smoothing)

    def predict_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """``probabilities`` (B, K), ``targets`` and ``losses``."""
        images, targets, _ = batch
        logits = self.evaluated(self.prepare(images)).float()
        if self.multilabel:
            losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)
            probabilities = logits.sigmoid()
        else:
            losses = F.cross_entropy(logits, targets, reduction="none")
            probabilities = logits.softmax(dim=1)
        return {"probabilities": probabilities.cpu(), "targets": targets.cpu(), "losses": losses.cpu()}

    def metrics(self, found: dict[str, Any]) -> dict[str, Any]:
        """Those of :func:`mixlab.training.metrics.split_metrics`."""
        return split_metrics(found["probabilities"], found["targets"], self.card.task, found["loss"])
