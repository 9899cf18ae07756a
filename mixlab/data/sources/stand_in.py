"""``stand-in:NAME``: a few real images in the form of the set NAME, to test a study where NAME's files are absent.

Its task, channels, axes and size are those of NAME's card. Its images are scikit-learn's digits (in volumes one behind
the other): 4 of each class for training, 2 for validation and 2 for the test; of a multi-label set, of each digit.
Scores on it mean nothing.

Of a segmentation set the stand-in has as many classes: the ink of a digit is one of them, and paper the first; where
structures overlap, the ink belongs to several or to none. Where the set's images differ in size, it has 32 pixels an
axis.

Of a set that is known from its files only (``folder``, ``csv``, ``npz``) the form is not known: its stand-in is a grey
classification set of 8 x 8 pixels, or with as many channels as ``data.channels`` asks for; with ``data.instances`` it
has masks.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from mixlab.data.card import DataCard, event
from mixlab.data.config import DataConfig
from mixlab.data.images import Array, ArrayImages
from mixlab.data.mask_files import INSTANCES
from mixlab.data.masks import ArrayMasks, MaskStore, digest
from mixlab.data.raw import RawData
from mixlab.data.resize import resize
from mixlab.data.sources import digits, find_source, register_dataset
from mixlab.errors import expected

KIND = "stand-in"
COUNTS = {"train": 4, "val": 2, "test": 2}
#: Pixels an axis of the stand-in for a segmentation set whose images differ in size.
MASKED = 32
#: Findings of the multi-label form: the digits that have each. All digits are in each split, so each is there and not.
FINDINGS = {"odd": "13579", "above 4": "56789", "closed loop": "0689", "prime": "2357", "multiple of 3": "0369"}


def describe(argument: str, channels: int | None = None, instances: bool = False) -> DataCard:
    """The card without the images.

    Args:
        argument: NAME, any data set's name.
        channels: those of a set that is known from its files only.
        instances: whether such a set has masks of objects.

    Raises:
        UserError: there is no such set, or its card cannot be made without its files.
    """
    if not argument:
        raise expected("data.name", "stand-in:NAME with a data set's name", KIND, "stand-in:medmnist:pathmnist@224")
    source, inner = find_source(argument)
    of = argument
    if source.describe is None:  # named without its place, as such a set itself is
        of = f"{source.name}:{Path(inner).name}" if inner else source.name
        card = replace(digits.describe(), channels=channels or 1)
        if instances:
            card = replace(card, task="segmentation", classes=INSTANCES.names, background=0, image_size=None)
    else:
        card = source.describe(inner)
    masks = card.task == "segmentation"
    return replace(
        digits.describe(),
        name=f"{KIND}:{of}",
        task=card.task,
        classes=_structures(card) if masks else _findings(card) if card.task == "multilabel" else _classes(card),
        channels=card.channels,
        spatial_dims=card.spatial_dims,
        image_size=card.image_size or (MASKED if masks else 8,) * card.spatial_dims,
        overlapping=card.overlapping,
        background=card.background,
        ignore_label=card.ignore_label,
        spacing=card.spacing,
        splits=f"the first digits of each class: {', '.join(f'{n} {split}' for split, n in COUNTS.items())}",
        notes=(f"a stand-in for {of}, which is not here: digits, to test that a study runs; scores mean nothing",),
    )


def _structures(card: DataCard) -> tuple[str, ...]:
    return tuple("background" if k == card.background else f"structure {k}" for k in range(len(card.classes)))


def _findings(card: DataCard) -> tuple[str, ...]:
    return tuple(FINDINGS)[: len(card.classes)]


def _classes(card: DataCard) -> tuple[str, ...]:
    """The digits, or with fewer classes than ten those of equal rest: ``0 2 4 6 8`` and ``1 3 5 7 9``."""
    classes = min(10, len(card.classes))
    return tuple(" ".join(str(d) for d in range(rest, 10, classes)) for rest in range(classes))


@register_dataset(KIND, pattern="stand-in:NAME", describe=describe, listed=False)
def open_stand_in(config: DataConfig, argument: str) -> RawData:
    """The first digits of each class; nothing depends on a seed.

    Raises:
        UserError: there is no set NAME, or its card cannot be made without its files.
    """
    from sklearn.datasets import load_digits

    card = describe(argument, config.channels, config.instances)
    bunch = load_digits()
    multilabel, masks = card.task == "multilabel", card.task == "segmentation"
    groups = np.asarray(bunch.target, dtype=np.int64) % (10 if multilabel or masks else len(card.classes))
    given = [split for split, count in COUNTS.items() for _ in range(count)]
    first = [np.flatnonzero(groups == group)[: len(given)] for group in np.unique(groups)]
    cases = np.concatenate(first)
    findings = (
        [[int(str(digit) in FINDINGS[name]) for name in card.classes] for digit in range(10)] if multilabel else []
    )
    images = np.stack([_image(bunch.images[i], card) for i in cases])
    targets: Array | MaskStore = np.array(findings)[groups[cases]] if multilabel else groups[cases]
    if masks:
        targets = InkMasks(images[..., 0], groups[cases], card)
    raw = RawData.from_card(
        card,
        images=ArrayImages([images], channels_last=True),
        targets=targets,
        ids=[f"digit-{i:04d}" for i in cases],
        given=given * len(first),
    )
    raw.spacing = [card.spacing] * len(cases)
    raw.events = [event("stand-in", card.notes[0])]
    return raw


def _image(digit: Array, card: DataCard) -> Array:
    """uint8 ``(*spatial, C)``."""
    pixels = np.rint(digit / 16 * 255).astype(np.uint8)
    while pixels.ndim < card.spatial_dims:
        pixels = np.repeat(pixels[None], len(pixels), axis=0)
    assert card.image_size is not None
    return np.repeat(resize(pixels[None], card.image_size)[0][..., None], card.channels, axis=-1)


class InkMasks(ArrayMasks):
    """Masks of digits: where there is ink, one class that depends on the digit, or several structures that overlap.

    Args:
        pixels: uint8 ``(N, *spatial)``.
        digits: what is written, ``(N,)``.
        card: the form that the masks take.
    """

    def __init__(self, pixels: Array, digits: Array, card: DataCard) -> None:
        super().__init__(pixels)
        self.digits = digits
        self.classes = len(card.classes)
        self.overlapping = card.overlapping
        self.ignore = card.ignore_label

    def read(self, index: int) -> Array:
        """``(*spatial)``, or ``(K, *spatial)`` of overlapping structures: of digit d each k where d + k is even."""
        ink = (self.array[index] > 127).astype(np.uint8)
        digit = int(self.digits[index])
        if self.overlapping:
            return np.stack([ink * ((digit + k) % 2 == 0) for k in range(self.classes)]).astype(np.uint8)
        mask = ink * np.uint8(1 + digit % (self.classes - 1))
        if self.ignore is not None:
            mask[0] = self.ignore
        return mask

    def digest(self, mask: Array) -> str:
        """Of the mask."""
        return digest(mask)
