"""The task of images that have a mask each: a class at every pixel, or structures that may overlap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mixlab.data.card import structures
from mixlab.data.masks import IGNORE
from mixlab.data.pairing import default_loss
from mixlab.training.crops import cut, padded_to
from mixlab.training.distances import hausdorff
from mixlab.training.mask_losses import mask_loss
from mixlab.training.mask_scores import MaskScores
from mixlab.training.recipe import sizes
from mixlab.training.task import ImageTask

#: Windows overlap by a quarter, MONAI's default, and count most in their middle.
OVERLAP = 0.25


class SegmentationTask(ImageTask):
    """Trains a model that maps ``(B, C, *spatial)`` to logits ``(B, K, *spatial)``."""

    followed: ClassVar[tuple[str, ...]] = ("loss", "dice")
    finite: ClassVar[str] = "losses"

    #: Spacing of each case of the split that is predicted, to measure distances; None for no distances.
    spacing: Sequence[tuple[float, ...] | None] | None = None

    @property
    def loss_name(self) -> str:
        """A key of :data:`mixlab.training.mask_losses.TERMS`."""
        return self.recipe.loss or default_loss(self.card)

    def weights(self, train: Any) -> Tensor | None:
        """Weights of the classes by their pixels in the training split, or of the positives of each structure; 1 for
        what does not occur in it."""
        if self.recipe.class_weights == "none":
            return None
        counts = train.targets.counts().sum(axis=0).astype(np.float64)
        if self.card.overlapping:
            pixels = float(sum(np.prod(size) for size in train.sizes))
            weights = np.where(counts > 0, (pixels - counts) / np.maximum(counts, 1), 1.0)
        else:
            weights = np.where(counts > 0, counts.sum() / (len(counts) * np.maximum(counts, 1)), 1.0)
        return torch.from_numpy(weights).float()

    def training_loss(self, images: Tensor, targets: Tensor) -> Tensor:
        prepared, masks = self.prepare_training(images, targets)
        assert masks is not None
        losses = mask_loss(
            self.model(prepared).float(),
            masks,
            self.loss_name,
            weights=self.class_weights,
            label_smoothing=self.recipe.label_smoothing,
        )
        return losses.mean()

    def logits(self, images: Tensor) -> Tensor:
        """``(B, K, *spatial)`` for images in [0, 1], of the whole image or by a window of the recipe's crop size."""
        crop = sizes(self.recipe.crop_size, self.card.spatial_dims)
        if crop is None:
            return self.evaluated(self.prepare(images)).float()
        from monai.inferers.utils import sliding_window_inference  # imported late: MONAI takes seconds

        size = images.shape[2:]
        # Training pads crops of small images with 0 at their end; so do windows.
        large = padded_to(images, crop)
        found = sliding_window_inference(
            self.prepare(large), crop, self.recipe.batch_size, self.evaluated, overlap=OVERLAP, mode="gaussian"
        )
        assert isinstance(found, Tensor)
        return cut(found, [0] * len(size), size).float()

    def decide(self, logits: Tensor) -> Tensor:
        """The predicted class of each pixel ``(B, *spatial)``, or structures ``(B, K, *spatial)`` of 0 and 1; uint8."""
        return (logits >= 0 if self.card.overlapping else logits.argmax(1)).to(torch.uint8)

    def predict_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Pixels of each structure, ``(B, K)``: ``true``, ``said``, ``hit``, and ``said_unmasked`` where pixels are
        ignored; ``hd95`` if :attr:`spacing` is set; ``losses``."""
        images, targets, indices = batch
        logits = self.logits(images)
        losses = mask_loss(logits, targets, self.loss_name)
        truth, said = self.planes(targets), self.planes(self.decide(logits))
        found = {"losses": losses.cpu()}
        if self.card.ignore_label is not None:
            found["said_unmasked"] = _pixels(said)
            said = said & (targets != IGNORE).unsqueeze(1)
        found |= {"true": _pixels(truth), "said": _pixels(said), "hit": _pixels(said & truth)}
        if self.spacing is not None:
            steps = [self.spacing[int(i)] for i in indices]
            truth, said = truth.cpu(), said.cpu()
            found["hd95"] = torch.stack([hausdorff(s, t, step) for s, t, step in zip(said, truth, steps, strict=True)])
        return found

    def planes(self, masks: Tensor, classes: Iterable[int] | None = None) -> Tensor:
        """Index maps or planes as one bool plane a structure, or of each of ``classes``, ``(B, K, *spatial)``."""
        if self.card.overlapping:
            return masks.bool()
        return torch.stack([masks == k for k in classes or structures(self.card)], dim=1)

    def metrics(self, found: dict[str, Any]) -> dict[str, Any]:
        """Those of :class:`mixlab.training.mask_scores.MaskScores`, and the ``loss``."""
        return {"loss": found["loss"], **MaskScores.of(found).metrics()}


def _pixels(planes: Tensor) -> Tensor:
    return planes.flatten(2).sum(2).cpu()
