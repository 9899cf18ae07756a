"""Image files outside any data set, presented as a card's images are: for predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixlab.data.card import DataCard, Event, event
from mixlab.data.files import FileImages
from mixlab.data.images import Array, ImageStore
from mixlab.data.masks import BlankMasks
from mixlab.data.prepare import PreparedImages
from mixlab.data.prepared_masks import PreparedMasks
from mixlab.data.raw import times
from mixlab.data.readers import NIFTI, SUFFIXES, kind_of
from mixlab.data.slices import VolumeSlices, joined
from mixlab.data.split import ImageSplit
from mixlab.errors import Quoted, expected


def image_files(files: Sequence[Path], card: DataCard) -> ImageSplit:
    """Image files with the channels and size of a card's images; their targets are zeros that mean nothing.

    Where the card has no one size, each image keeps its own. The spacing of NIfTI files is known.

    Args:
        files: PNG, JPEG, TIFF, NIfTI or DICOM files.
        card: the card of the data that a model was trained on.

    Raises:
        UserError: files are missing or folders, of no known format, broken, or of other dimensions; all are named.
    """
    _check_files(files)
    names = [str(file) for file in files]
    return _presented(FileImages(list(files), names), names, card)


@dataclass(frozen=True)
class FilesToSegment:
    """Image files as cases of a split, and back from the cases' masks to those of the files.

    Attributes:
        split: the cases, in the order of the files; a volume of which slices are segmented is many.
        counts: cases of each file.
        sizes: ``(*spatial)`` of each case as its file stores it.
        axis: the axis of (z, y, x) that slices were cut across; None where each file is one case.
        events: what the user should know of how the files were read.
    """

    split: ImageSplit
    counts: list[int]
    sizes: list[tuple[int, ...]]
    axis: int | None
    events: list[Event]

    def join(self, masks: Sequence[Array]) -> Array:
        """The mask of one file, at the pixels that its reader presents, from the masks of its cases.

        Args:
            masks: ``(*size)`` class numbers each, or ``(K, *size)`` of overlapping structures.
        """
        if self.axis is None:
            return masks[0]
        if self.split.overlapping:
            return np.stack([joined(planes, self.axis) for planes in zip(*masks, strict=True)])
        return joined(masks, self.axis)


def files_to_segment(files: Sequence[Path], card: DataCard) -> FilesToSegment:
    """Image files as the images of a segmentation set were presented.

    Where the set's images are slices of volumes (``card.plane``), NIfTI files are cut as they were, and their
    intensities are scaled a volume as they were.

    Args:
        files: PNG, JPEG, TIFF, NIfTI or DICOM files.
        card: the card of the segmentation set that a model was trained on.

    Raises:
        UserError: as :func:`image_files`; or volumes to be cut beside images.
    """
    _check_files(files)
    volumes = [kind_of(file) == "nifti" for file in files]
    if card.plane is None or not any(volumes):
        split, counts, axis = image_files(files, card), [1] * len(files), None
    elif not all(volumes):
        got = Quoted(f"{sum(volumes)} volumes and {len(files) - sum(volumes)} images")
        raise expected("images", "volumes to be cut into slices, or images, not both", got, "a call for each")
    else:
        slices = VolumeSlices(list(files), [str(file) for file in files], card.plane)
        split, axis = _presented(slices, slices.names, card), slices.axis
        found = Counter(volume for volume, _ in slices.places)
        counts = [found[volume] for volume in range(len(files))]
    store = split.images.store
    sizes = [shape[1:] for shape in store.shapes]
    resized = sum(size != shown for size, shown in zip(sizes, split.sizes, strict=True))
    events = list(getattr(store, "events", []))
    if resized and card.image_size is not None:
        what = f"{resized} of {len(sizes)} {'images' if axis is None else 'slices'}"
        message = f"{what} resized to {times(card.image_size)} for the model; masks have the files' own sizes"
        events.append(event("resizing", message))
    return FilesToSegment(split, counts, sizes, axis, events)


def _check_files(files: Sequence[Path]) -> None:
    """Refuse what is no image file by its name, all in one message."""
    known = ", ".join(SUFFIXES)
    faults = [f"{f}: a folder, not a file" for f in files if f.is_dir()]
    faults += [f"{f}: no such file" for f in files if not f.exists()]
    faults += [f"{f}: no image format; known are {known}" for f in files if f.is_file() and not kind_of(f)]
    if faults or not files:
        got = Quoted("\n  ".join([f"{len(faults)} of {len(files)} at fault:", *faults]) if faults else "none")
        raise expected("images", "image files", got)


def _presented(store: FileImages | VolumeSlices, names: list[str], card: DataCard) -> ImageSplit:
    """Stored images with the channels and size of a card's images."""
    _check_shapes(store, names, card)
    images = PreparedImages(store, channels=card.channels, size=card.image_size)
    indices = np.arange(len(names))
    images.load(indices.tolist())
    if card.task == "segmentation":
        planes = len(card.classes) if card.overlapping else None
        masks = BlankMasks([shape[1:] for shape in store.shapes], planes)
        blank = PreparedMasks(masks, size=card.image_size, classes=len(card.classes), overlapping=card.overlapping)
        return ImageSplit(images, indices, blank, task=card.task, ids=names, spacing=store.spacing)
    shape = (len(names), len(card.classes)) if card.task == "multilabel" else (len(names),)
    targets = np.zeros(shape, dtype=np.float32 if card.task == "multilabel" else np.int64)
    return ImageSplit(images, indices, targets, task=card.task, ids=names)


def _check_shapes(store: ImageStore, names: Sequence[str], card: DataCard) -> None:
    """Refuse the first image of other dimensions, or of channels that cannot become the card's."""
    for name, shape in zip(names, store.shapes, strict=True):
        dims = len(shape) - 1
        if dims != card.spatial_dims:
            # only a set that was cut from volumes says which slices its model knows
            hint = "its slices as 2D images" if (dims, name.lower().endswith(NIFTI)) == (3, True) else ""
            raise expected(f"image {name}", f"{card.spatial_dims}D, as {card.name}", Quoted(f"{dims}D"), hint)
        if shape[0] != card.channels and not {shape[0], card.channels} <= {1, 3}:
            raise expected(f"image {name}", f"{card.channels} channels, as {card.name}", shape[0])
