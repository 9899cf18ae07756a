"""Open a data set: check it, split it, decode it once, and write its card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mixlab.data.card import DataCard, Event, event
from mixlab.data.config import DataConfig
from mixlab.data.fingerprint import duplicates, fingerprint
from mixlab.data.folds import cross_validation, missing_classes
from mixlab.data.images import Array
from mixlab.data.masks import mask_store
from mixlab.data.membership import Membership, low_data, make_splits
from mixlab.data.prepare import PreparedImages
from mixlab.data.prepared_masks import PreparedMasks
from mixlab.data.raw import RawData, times
from mixlab.data.sources import find_source
from mixlab.data.split import ImageSplit
from mixlab.errors import Quoted, expected


@dataclass(frozen=True)
class ImageData:
    """An opened data set.

    Attributes:
        card: what is known of it.
        splits: ``train``, ``val`` and ``test``.
        fingerprint: SHA-256 of contents, labels, class names and the splits in use (a fold has its own).
        events: what happened on the way that the user should know; part of every run's record.
    """

    card: DataCard
    splits: dict[str, ImageSplit]
    fingerprint: str
    events: list[Event]


def open_data(config: DataConfig) -> ImageData:
    """Open a data set. Everything that can be wrong with it is found here, before training starts.

    Raises:
        UserError: unknown name, missing or broken files (all named in one list), too few images of a class, labels out
            of range, a group in two splits, images of several sizes without ``image_size`` (but in a segmentation
            set, whose cases keep their sizes), masks of another size than their images or with values of no class.
    """
    source, argument = find_source(config.name)
    if config.instances and source.name not in ("folder", "stand-in"):
        raise expected("data.instances", "a folder of images and masks", config.name, "leaving it out")
    raw = source.open(config, argument)
    raw.check()
    members = _members(raw, config)
    channels, notices = _channels(raw, config)
    size = _size(raw, config)
    images = PreparedImages(raw.images, channels=channels, size=size)
    images.load(_in_use(members), members.indices["train"].tolist())
    masks = _masks(raw, size, _in_use(members)) if raw.task == "segmentation" else None
    targets = _labels(raw) if masks is None else masks
    copies = duplicates(raw, members, images.digests)
    mean, std = _statistics(images, members)
    splits = {
        name: ImageSplit(
            images,
            indices,
            targets,
            task=raw.task,
            ids=raw.ids,
            groups=list(raw.groups) if raw.groups else None,
            spacing=raw.spacing,
        )
        for name, indices in members.indices.items()
    }
    empty = _empty(raw, splits)
    card = DataCard(
        name=raw.name,
        task=raw.task,
        classes=raw.classes,
        channels=channels,
        spatial_dims=raw.spatial_dims,
        image_size=_one({shown for split in splits.values() for shown in split.sizes}),
        sizes={name: len(indices) for name, indices in members.indices.items()},
        class_counts={name: _counts(raw, split) for name, split in splits.items()},
        mean=mean,
        std=std,
        flips=raw.flips,
        source=raw.source,
        licence=raw.licence,
        citation=raw.citation,
        splits=members.how,
        notes=raw.notes,
        leaks=(*raw.leaks, *copies),
        overlapping=raw.overlapping,
        background=raw.background,
        ignore_label=raw.ignore_label,
        spacing=_one({spacing for split in splits.values() for spacing in split.spacing}),
        plane=raw.plane,
        empty_masks=empty,
        ignored_pixels={} if raw.ignore_label is None else _ignored(splits),
    )
    decoding = list(getattr(raw.images, "events", []))
    found = [event("duplicates", text) for text in copies]
    found += [event("empty masks", f"{n} of {len(splits[name])} {name} masks") for name, n in empty.items() if n]
    events = [*raw.events, *members.events, *notices, *decoding, *found]
    print_of_data = fingerprint(raw, members, images.digests, None if masks is None else masks.digests)
    return ImageData(card, splits, print_of_data, events)


def _members(raw: RawData, config: DataConfig) -> Membership:
    members = make_splits(raw, config.split_seed)
    if config.folds is not None:
        members = cross_validation(raw, members, folds=config.folds, fold=config.fold, seed=config.split_seed)
    if config.train_per_class is not None:
        train, note = low_data(raw, members.indices["train"], config.train_per_class, config.split_seed)
        members.indices["train"] = train
        members.events.append(note)
        members.how += f"; {note['message']}"
    for name, indices in members.indices.items():
        missing = missing_classes(raw, indices)
        if missing and name == "train" and raw.task == "classification":
            got = Quoted(f"none of {', '.join(missing)}")
            raise expected(f"data {raw.name}", "training images of each class", got, "another data.split_seed")
        if missing:
            members.events.append(event("split", f"no {name} case of {', '.join(missing)}"))
    return members


def _in_use(members: Membership) -> list[int]:
    return sorted({int(i) for indices in members.indices.values() for i in indices})


def _channels(raw: RawData, config: DataConfig) -> tuple[int, list[Event]]:
    """Channels to present: those asked for, else those of most images."""
    stored = [shape[0] for shape in raw.images.shapes]
    kinds = {c: stored.count(c) for c in sorted(set(stored))}
    most = max(kinds, key=lambda c: (kinds[c], c))
    channels = config.channels or most
    if any(c != channels and not {c, channels} <= {1, 3} for c in kinds):
        raise expected("data.channels", f"{most}, as the images of {raw.name} have", channels, str(most))
    if set(kinds) == {channels}:
        return channels, []
    counts = ", ".join(f"{n} with {c}" for c, n in kinds.items())
    tied = list(kinds.values()).count(kinds[most]) > 1
    why = "as asked" if config.channels else "as the richer half has" if tied else "as most have"
    return channels, [event("channels", f"images by channels: {counts}; all presented with {channels}, {why}")]


def _size(raw: RawData, config: DataConfig) -> tuple[int, ...] | None:
    """Size to present, or None when all images already have one size."""
    kinds: dict[tuple[int, ...], int] = {}
    for shape in raw.images.shapes:
        kinds[shape[1:]] = kinds.get(shape[1:], 0) + 1
    dims = {len(size) for size in kinds}
    if len(dims) > 1:
        counts = {f"{d}D": sum(n for size, n in kinds.items() if len(size) == d) for d in sorted(dims)}
        raise expected(f"data {raw.name}", "images or volumes, not both", counts)
    size = config.size_for(dims.pop())
    if size is None and len(kinds) > 1 and raw.task != "segmentation":
        low = tuple(min(s[a] for s in kinds) for a in range(raw.spatial_dims))
        high = tuple(max(s[a] for s in kinds) for a in range(raw.spatial_dims))
        got = Quoted(f"{len(kinds)} sizes from {times(low)} to {times(high)}")
        raise expected(
            f"data {raw.name}", "images of one size", got, "--image-size N (data.image_size), to resize them"
        )
    return size


def _one(found: set[Any]) -> Any:
    """What all cases have, or None."""
    return found.pop() if len(found) == 1 else None


def _labels(raw: RawData) -> Array:
    """Labels in the type that :class:`ImageSplit` hands out."""
    return np.asarray(raw.targets).astype(np.float32 if raw.task == "multilabel" else np.int64)


def _masks(raw: RawData, size: tuple[int, ...] | None, in_use: list[int]) -> PreparedMasks:
    """The masks at the images' size, decoded once."""
    masks = PreparedMasks(
        mask_store(raw.targets),
        size=size,
        classes=len(raw.classes),
        overlapping=raw.overlapping,
        ignore=raw.ignore_label,
        ids=raw.ids,
    )
    masks.load(in_use)
    return masks


def _empty(raw: RawData, splits: dict[str, ImageSplit]) -> dict[str, int]:
    """Cases of each split without a pixel of any structure; {} where every class is one."""
    if raw.task != "segmentation" or (raw.background is None and not raw.overlapping):
        return {}
    found = {}
    for name, split in splits.items():
        counts = split.targets.counts()
        if raw.background is not None:
            counts[:, raw.background] = 0
        found[name] = int((counts.sum(axis=1) == 0).sum())
    return found


def _ignored(splits: dict[str, ImageSplit]) -> dict[str, int]:
    return {name: int(split.targets.ignored().sum()) for name, split in splits.items()}


def _counts(raw: RawData, split: ImageSplit) -> tuple[int, ...]:
    if raw.task == "multilabel":
        return tuple(int(n) for n in split.targets.sum(axis=0))
    if raw.task == "segmentation":
        return tuple(int(n) for n in split.targets.counts().sum(axis=0))
    return tuple(int(n) for n in np.bincount(split.targets.ravel(), minlength=len(raw.classes)))


def _statistics(images: PreparedImages, members: Membership) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all pixels of the training split."""
    pixels, total, squares = np.sum([images.moments[int(i)] for i in members.indices["train"]], axis=0)
    mean = total / pixels
    deviation = np.sqrt(np.maximum(squares / pixels - mean**2, 0))
    # a channel that is constant has nothing to be scaled
    std = np.where(deviation > 1e-6, deviation, 1.0)
    return tuple(round(float(m), 8) for m in mean), tuple(round(float(s), 8) for s in std)
