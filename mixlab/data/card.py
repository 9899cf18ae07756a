"""The card of a data set: what it is, how it may be used, and what is known to be wrong with it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

Task = Literal["classification", "multilabel", "segmentation"]
Event = dict[str, str]
OF_MASKS = ("overlapping", "background", "ignore_label", "spacing", "plane", "empty_masks", "ignored_pixels")
"""Fields of a card that say something of segmentation sets only."""


@dataclass(frozen=True, kw_only=True)
class DataCard:
    """What is known of a data set as it was opened.

    A card that was made without the data (:func:`mixlab.data.describe`) has no ``sizes``, ``class_counts``, ``mean``
    and ``std``.
    """

    name: str
    """Name that :func:`mixlab.data.open_data` takes; a folder or table is named without its place."""
    task: Task
    """``classification`` (one class an image), ``multilabel`` (any number) or ``segmentation`` (masks)."""
    classes: tuple[str, ...]
    """Names of the classes in label order; of a segmentation set with the background, where it has one."""
    channels: int
    """Channels of the images as they come out."""
    spatial_dims: int
    """2 for images, 3 for volumes."""
    image_size: tuple[int, ...] | None = None
    """Pixels or voxels per axis, in (D, H, W) order; None if they vary."""
    sizes: dict[str, int] = dataclasses.field(default_factory=dict)
    """Cases in each split."""
    class_counts: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    """Cases (multilabel: positive cases; segmentation: pixels) of each class in each split."""
    mean: tuple[float, ...] = ()
    """Mean of each channel over the training split, on the [0, 1] scale."""
    std: tuple[float, ...] = ()
    """Standard deviation of each channel over all pixels of the training split, on the [0, 1] scale."""
    flips: tuple[int, ...] = ()
    """Spatial axes along which a mirrored image is still a valid image of its class."""
    source: str = ""
    """Where the images come from."""
    licence: str = ""
    """Licence of the images."""
    citation: str = ""
    """What to cite."""
    splits: str = ""
    """How the splits were made: ``official``, ``given``, ``spatial`` or ``seeded, stratified ...``."""
    notes: tuple[str, ...] = ()
    """What a user should know."""
    leaks: tuple[str, ...] = ()
    """Known ways in which the test (or validation) split is not independent of the training split."""
    overlapping: bool = False
    """Segmentation: structures ``(K, *spatial)`` of 0 and 1 that may overlap, instead of one class a pixel."""
    background: int | None = None
    """Segmentation: the class that is no structure; None if each class is one, or structures overlap."""
    ignore_label: int | None = None
    """Segmentation: the value of pixels that count for nothing; None if all pixels are labelled."""
    spacing: tuple[float, ...] | None = None
    """Millimetres from pixel to pixel as presented, in (D, H, W) order; None if unknown or not the same in all cases.
    Each case's own is in :attr:`ImageSplit.spacing`."""
    plane: str | None = None
    """Segmentation: ``axial``, ``coronal`` or ``sagittal`` if the images are slices of volumes, cut as
    :mod:`mixlab.data.slices` cuts them."""
    empty_masks: dict[str, int] = dataclasses.field(default_factory=dict)
    """Segmentation: cases of each split without a pixel of any structure."""
    ignored_pixels: dict[str, int] = dataclasses.field(default_factory=dict)
    """Segmentation: pixels of each split that count for nothing."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON and YAML; tuples become lists. What only masks have is left out of other cards."""
        left_out = () if self.task == "segmentation" else OF_MASKS
        return {name: _plain(value) for name, value in dataclasses.asdict(self).items() if name not in left_out}


def structures(card: Any) -> list[int]:
    """The classes of a segmentation set that are structures: all but the background."""
    return [k for k in range(len(card.classes)) if card.overlapping or k != card.background]


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value


def event(kind: str, message: str) -> Event:
    """One entry of the record: what happened to the data that the user did not ask for in so many words."""
    return {"kind": kind, "message": message}
