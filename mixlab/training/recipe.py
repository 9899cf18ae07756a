"""The recipe: optimiser, schedule, loss, augmentation and budget of a run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mixlab.errors import expected, unknown


@dataclass(kw_only=True, frozen=True)
class Recipe:
    """How a model is trained; the defaults are the study's (AdamW, cosine, random affine).

    Raises:
        UserError: a value is out of range, or two options contradict each other.
    """

    epochs: int = 100
    """Passes over the training split (replaced by `iterations` when that is given)."""
    iterations: int | None = None
    """Optimiser steps of the whole training; the published study takes 35000."""
    batch_size: int = 128
    """Images a batch."""
    accumulate: int = 1
    """Batches whose gradients are added up before an optimiser step."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.05
    """Weight decay of AdamW; norms, biases and other one-dimensional parameters have none."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Course of the learning rate after the warm-up."""
    schedule_per: Literal["epoch", "step"] = "epoch"
    """Whether the learning rate changes at each epoch or at each optimiser step."""
    warmup_epochs: int = 5
    """Epochs of linear warm-up; never more than half of the training."""
    warmup_rate: float = 1e-5
    """Learning rate at the first step of the warm-up."""
    floor_rate: float = 1e-5
    """Learning rate at the end of the cosine."""
    loss: str | None = None
    """Loss: cross_entropy, or bce for labels; of masks dice_ce, dice or cross_entropy, or for overlapping structures
    dice_bce, dice or bce. By default the first that the data set can have."""
    label_smoothing: float = 0.1
    """Label smoothing of the cross-entropy; not used for multi-label data and overlapping structures."""
    class_weights: Literal["balanced", "none"] = "balanced"
    """Weights of the classes in the loss: inverse to their frequency in the training split (of masks: in
    pixels), or all one."""
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    """Order of the training images: each once an epoch, or drawn so that classes are equally frequent."""
    affine_std: float = 0.1
    """Random affine map: standard deviation of the noise on the entries of the matrix (0 switches it off)."""
    crop_size: int | list[int] | None = None
    """Masks: train on a random crop of this size from each image, and predict with a window of it that slides; a number
    or one per axis in (D, H, W) order. By default whole images, which must then have one size."""
    flips: bool = False
    """Flip images at random along the axes that the data set's card allows."""
    crops_per_image: int = 1
    """Crops that are taken from each image in an epoch (which is read for each); more than one needs `crop_size`."""
    clip_norm: float | None = None
    """Largest norm of the gradient; larger ones are scaled down."""
    layer_decay: float | None = None
    """Factor of the learning rate from each block to the one below it (fine-tuning), in (0, 1]."""
    new_lr_scale: float | None = None
    """Factor of the learning rate of parameters that no weights were loaded into: an exchanged mixer, a classifier."""
    freeze_backbone: bool = False
    """Train the head alone (linear probe); the backbone stays in evaluation mode."""
    ema_decay: float | None = None
    """Decay of the moving average of the weights, which is then validated and tested, in (0, 1)."""
    early_stopping: int | None = None
    """Epochs without a better validation score (macro F1; of masks Dice) after which training stops."""
    head_dropout: float | None = None
    """Dropout probability in the head, for heads that have a dropout layer."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "crops_per_image"):
            self._check(name, getattr(self, name) >= 1, "at least 1", 1)
        for name in ("iterations", "early_stopping"):
            value = getattr(self, name)
            self._check(name, value is None or value >= 1, "at least 1 or null", "null")
        self._check("warmup_epochs", self.warmup_epochs >= 0, "0 or more", 5)
        self._check("learning_rate", _finite(self.learning_rate) and self.learning_rate > 0, "a positive number", 1e-3)
        for name in ("weight_decay", "warmup_rate", "floor_rate", "affine_std"):
            value = getattr(self, name)
            self._check(name, _finite(value) and value >= 0, "a number of at least 0", getattr(Recipe, name))
        if isinstance(self.crop_size, tuple):  # as YAML has it
            object.__setattr__(self, "crop_size", list(self.crop_size))
        axes = [1] if self.crop_size is None else sizes(self.crop_size, 1) or ()
        self._check("crop_size", bool(axes) and all(n >= 1 for n in axes), "sizes of at least 1", 128)
        self._check("label_smoothing", 0 <= self.label_smoothing < 1, "a number in [0, 1)", 0.1)
        hints = {"clip_norm": 1.0, "new_lr_scale": 10, "layer_decay": 0.75, "ema_decay": 0.999, "head_dropout": 0.1}
        for name, hint in hints.items():
            value = getattr(self, name)
            top = {"layer_decay": 1.0, "ema_decay": 1 - 1e-9, "head_dropout": 1 - 1e-9}.get(name, math.inf)
            self._check(name, value is None or 0 < value <= top, f"null or a number above 0 and at most {top:g}", hint)
        if self.crops_per_image > 1 and self.crop_size is None:
            raise expected("recipe.crops_per_image", "1 without crop_size", self.crops_per_image, "crop_size: 128")
        if self.sampler == "balanced" and self.class_weights == "balanced":
            raise expected(
                "recipe.sampler and recipe.class_weights", "one of them to balance the classes",
                "balanced and balanced", "class_weights: none with the balanced sampler",
            )  # fmt: skip
        if self.freeze_backbone and self.layer_decay is not None:
            raise expected(
                "recipe.layer_decay", "null when the backbone is frozen", self.layer_decay, "one of the two options"
            )

    def _check(self, name: str, good: bool, want: str, hint: object) -> None:
        if not good:
            raise expected(f"recipe.{name}", want, getattr(self, name), str(hint))

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Recipe:
        """A recipe from plain values, where ``preset`` names the values that are not given."""
        return cls(**expand_preset(plain))

    def to_plain(self) -> dict[str, Any]:
        """All fields as plain values, for YAML."""
        return dataclasses.asdict(self)

    def epochs_for(self, steps_per_epoch: int) -> int:
        """Epochs of this recipe when an epoch has so many optimiser steps."""
        if self.iterations is None:
            return self.epochs
        return max(1, math.ceil(self.iterations / max(1, steps_per_epoch)))


def sizes(size: int | Sequence[int] | None, dims: int) -> tuple[int, ...] | None:
    """A size as one number an axis."""
    return (size,) * dims if isinstance(size, int) else None if size is None else tuple(size)


# What the study changes for masks; the short recipes are for small images and minutes of CPU time.
_MASKS: dict[str, Any] = {
    "batch_size": 32,
    "weight_decay": 0.01,
    "label_smoothing": 0.0,
    "class_weights": "none",
    "affine_std": 0.06,
}
_SHORT: dict[str, Any] = {
    "epochs": 30,
    "batch_size": 64,
    "learning_rate": 2e-3,
    "schedule_per": "step",
    "warmup_epochs": 3,
}
PRESETS: dict[str, dict[str, Any]] = {
    "study": {},
    "short": _SHORT,
    "segmentation": _MASKS,
    "segmentation-short": {**_SHORT, **_MASKS, "batch_size": 8},
}


def expand_preset(plain: Mapping[str, Any] | str) -> dict[str, Any]:
    """Replace the key ``preset``, or a bare name, by the preset's values; given values win.

    Raises:
        UserError: there is no such preset.
    """
    values = {"preset": plain} if isinstance(plain, str) else dict(plain)
    preset = values.pop("preset", "study")
    if preset not in PRESETS:
        raise unknown("recipe preset", str(preset), PRESETS)
    return {**PRESETS[preset], **values}


def _finite(value: float) -> bool:
    return math.isfinite(value)
