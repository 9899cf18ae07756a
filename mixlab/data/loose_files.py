"""Image files outside any data set, presented as a card's images are: for predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mixlab.data.card import DataCard
from mixlab.data.files import FileImages
from mixlab.data.masks import BlankMasks
from mixlab.data.prepare import PreparedImages
from mixlab.data.prepared_masks import PreparedMasks
from mixlab.data.readers import SUFFIXES, kind_of
from mixlab.data.split import ImageSplit
from mixlab.errors import Quoted, expected


def image_files(files: Sequence[Path], card: DataCard) -> ImageSplit:
    """Image files with the channels and size of a card's images; their targets are zeros that mean nothing.

    Where the card has no one size, each image keeps its own. The spacing of NIfTI files is known.

    Args:
        files: PNG, JPEG, TIFF, NIfTI or DICOM files.
        card: the card of the data that a model was trained on.

    Raises:
        UserError: files are missing, of no known format, broken, or of other dimensions; all are named.
    """
    names = [str(file) for file in files]
    faults = [f"{f}: no such file" for f in files if not f.is_file()]
    faults += [
        f"{f}: no image format; known are {', '.join(SUFFIXES)}" for f in files if f.is_file() and not kind_of(f)
    ]
    if faults or not files:
        got = Quoted("\n  ".join([f"{len(faults)} of {len(files)} at fault:", *faults]) if faults else "none")
        raise expected("images", "image files", got)
    store = FileImages(list(files), names)
    for name, shape in zip(names, store.shapes, strict=True):
        if len(shape) != card.spatial_dims + 1:
            raise expected(f"image {name}", f"{card.spatial_dims}D, as {card.name}", Quoted(f"{len(shape) - 1}D"))
        if shape[0] != card.channels and not {shape[0], card.channels} <= {1, 3}:
            raise expected(f"image {name}", f"{card.channels} channels, as {card.name}", shape[0])
    images = PreparedImages(store, channels=card.channels, size=card.image_size)
    indices = np.arange(len(files))
    images.load(indices.tolist())
    if card.task == "segmentation":
        planes = len(card.classes) if card.overlapping else None
        masks = BlankMasks([shape[1:] for shape in store.shapes], planes)
        blank = PreparedMasks(masks, size=card.image_size, classes=len(card.classes), overlapping=card.overlapping)
        blank.load(indices.tolist())
        return ImageSplit(images, indices, blank, task=card.task, ids=names, spacing=store.spacing)
    shape = (len(files), len(card.classes)) if card.task == "multilabel" else (len(files),)
    targets = np.zeros(shape, dtype=np.float32 if card.task == "multilabel" else np.int64)
    return ImageSplit(images, indices, targets, task=card.task, ids=names)
