"""What a source hands over: images, labels, and the facts for the card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mixlab.data.card import DataCard, Event, Task
from mixlab.data.images import Array, ImageStore
from mixlab.data.masks import MOST_CLASSES, MaskStore, mask_store
from mixlab.errors import Quoted, expected

SPLITS = ("train", "val", "test")
FACTS = (
    "name", "task", "classes", "splits", "flips", "source", "licence", "citation", "notes", "leaks", "overlapping",
    "background", "ignore_label", "plane",
)  # fmt: skip


@dataclass(kw_only=True)
class RawData:
    """All cases of a data set in one list, before splits, folds, channels and sizes.

    A source of your own fills in ``name``, ``task``, ``classes``, ``images``, ``targets`` and ``ids``; the rest has
    defaults. :func:`mixlab.data.open_data` does everything that is common: checks, splits, statistics, fingerprint.
    """

    name: str
    task: Task
    classes: tuple[str, ...]
    images: ImageStore
    targets: Array | MaskStore
    """Integers ``(N,)`` for classification, 0/1 ``(N, K)`` for multilabel; for segmentation label maps
    ``(N, *spatial)``, or a :class:`~mixlab.data.masks.MaskStore` that decodes masks when they are read."""
    ids: list[str]
    """Names of the cases, the same on every machine: seeded splits are drawn from them."""
    given: Sequence[str] | None = None
    """``train``, ``val`` or ``test`` for each case, or None: the source has no splits."""
    groups: Sequence[str] | None = None
    """What must stay together, such as a patient, for each case."""
    splits: str = "given"
    """How the given splits were made."""
    fixed_splits: bool = False
    """Whether the given splits are the only sensible ones, so that folds are refused (neighbouring slices)."""
    flips: tuple[int, ...] = ()
    source: str = ""
    licence: str = ""
    citation: str = ""
    notes: tuple[str, ...] = ()
    leaks: tuple[str, ...] = ()
    events: list[Event] = field(default_factory=list)
    overlapping: bool = False
    """Segmentation: masks are ``(K, *spatial)`` of 0 and 1, and structures may overlap."""
    background: int | None = None
    """Segmentation: the class that is no structure."""
    ignore_label: int | None = None
    """Segmentation: the value of pixels that count for nothing."""
    spacing: Sequence[tuple[float, ...] | None] | None = None
    """Millimetres from pixel to pixel of each stored image, in (D, H, W) order, where known."""
    plane: str | None = None
    """Segmentation: how the images were cut from volumes, as :mod:`mixlab.data.slices` says."""

    @classmethod
    def from_card(
        cls,
        card: DataCard,
        *,
        images: ImageStore,
        targets: Array | MaskStore,
        ids: list[str],
        given: Sequence[str] | None,
    ) -> RawData:
        """The facts of a card that is known before the data, with the data."""
        facts = {name: getattr(card, name) for name in FACTS}
        return cls(images=images, targets=targets, ids=ids, given=given, **facts)

    @property
    def spatial_dims(self) -> int:
        """Axes of the images without the channels."""
        return len(self.images.shapes[0]) - 1

    def check(self) -> None:
        """Look at everything that can be seen without decoding an image.

        Raises:
            UserError: no case, lists of different length, a label that names no class.
        """
        where = f"data {self.name}"
        if not self.ids:
            raise expected(where, "at least one image", 0, "another folder or file")
        lengths = {"images": len(self.images), "labels": len(self.targets), "ids": len(self.ids)}
        if len(set(lengths.values())) > 1:
            raise expected(where, "as many labels as images", lengths)
        if len(self.classes) < (1 if self.task == "multilabel" or self.overlapping else 2):
            raise expected(where, "at least two classes", list(self.classes), "one sub-folder a class")
        if self.task == "segmentation":
            self._check_masks(where)
        else:
            self._check_labels(where)

    def _check_masks(self, where: str) -> None:
        """Masks have the size of their images; what they hold is looked at when they are decoded."""
        if len(self.classes) > MOST_CLASSES:
            raise expected(f"{where}, classes", f"at most {MOST_CLASSES}", len(self.classes))
        masks = mask_store(self.targets)
        sizes = [(image[1:], mask) for image, mask in zip(self.images.shapes, masks.shapes, strict=True)]
        wrong = [i for i, (image, mask) in enumerate(sizes) if image != mask]
        if wrong:
            named = [f"{self.ids[i]}: image {times(sizes[i][0])}, mask {times(sizes[i][1])}" for i in wrong[:10]]
            got = Quoted(f"{len(wrong)} of {len(sizes)} that differ ({'; '.join(named)})")
            raise expected(f"{where}, masks", "masks of the size of their images", got)

    def _check_labels(self, where: str) -> None:
        top = 1 if self.task == "multilabel" else len(self.classes) - 1
        flat = np.asarray(self.targets).reshape(len(self.ids), -1)
        bad = np.flatnonzero(((flat < 0) | (flat > top)).any(axis=1))
        if len(bad):
            worst = {i: flat[i].max() if flat[i].max() > top else flat[i].min() for i in bad[:5]}
            cases = ", ".join(f"{self.ids[i]} has {value}" for i, value in worst.items())
            raise expected(f"{where}, labels", f"values from 0 to {top}", Quoted(f"{len(bad)} out of range ({cases})"))

    def strata(self) -> NDArray[np.int64]:
        """One class a case for stratified drawing; of several positives the rarest, of none an extra class."""
        if self.task == "classification":
            return np.asarray(self.targets, dtype=np.int64)
        if self.task == "segmentation":
            return np.zeros(len(self.ids), dtype=np.int64)
        positive = np.asarray(self.targets) > 0
        frequency = positive.sum(axis=0)
        rarest_first = np.argsort(frequency, kind="stable")
        first = np.argmax(positive[:, rarest_first], axis=1)
        return np.where(positive.any(axis=1), rarest_first[first], positive.shape[1]).astype(np.int64)


def times(size: Sequence[int]) -> str:
    """``12 x 10`` from a size."""
    return " x ".join(map(str, size))
