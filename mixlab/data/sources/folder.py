"""``folder:PATH``: a folder of your own with a sub-folder for each class, or with image and mask pairs.

Pairs are in ``images`` and ``masks``: :mod:`mixlab.data.sources.pairs`. What follows is for classification:
Either ``PATH/CLASS/...`` (splits are drawn) or ``PATH/train/CLASS/...`` with ``val`` (``valid``, ``validation``) and
``test`` (``testing``) next to it. Which splits are drawn from which is in :mod:`mixlab.data.membership`. Case names are
paths relative to the folder, so the splits do not change when the folder is moved.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixlab.data.card import event
from mixlab.data.config import DataConfig
from mixlab.data.files import FileImages
from mixlab.data.raw import RawData
from mixlab.data.readers import SUFFIXES, kind_of
from mixlab.data.sources import register_dataset
from mixlab.data.sources.pairs import IMAGES, MASKS, has_pairs, open_pairs
from mixlab.errors import Quoted, expected

SPLIT_NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
NOTES = (
    "8- and 16-bit images are divided by the largest value of their type; floats, NIfTI and DICOM are scaled by the "
    "image's own 0.5 and 99.5 percentiles",
    "the voxel spacing of NIfTI and DICOM files is not looked at: resample first where it varies",
    "images of unknown origin: no mirroring is assumed to be harmless",
)


@dataclass
class Found:
    """Image files of a folder."""

    paths: list[Path]
    classes: list[str]
    """Class of each file."""
    splits: list[str] | None
    ignored: Counter[str]


def path_at_hand(config: DataConfig, argument: str) -> bool:
    """Whether there is anything at the path."""
    return resolve(config, argument, "folder:PATH").exists()


@register_dataset("folder", pattern="folder:PATH", at_hand=path_at_hand)
def open_folder(config: DataConfig, argument: str) -> RawData:
    """The images of a folder.

    Raises:
        UserError: no such folder, no classes, a class that is in another split but not in training, broken files.
    """
    root = resolve(config, argument, "folder:PATH")
    if not root.is_dir():
        raise expected(f"data folder:{argument}", "an existing folder", str(root), "the path of a folder of images")
    name = f"folder:{root.resolve().name}"
    if has_pairs(root):
        paired = [p.name for p in _folders(root) if (p / IMAGES).is_dir() or (p / MASKS).is_dir()]
        splits = {name: SPLIT_NAMES.get(name.lower()) for name in paired}
        if paired:
            _check_splits(root, paired, list(splits.values()))
        return open_pairs(config, root, name, splits)
    if config.instances:
        raise expected("data.instances", f"a folder with {IMAGES} and {MASKS}", str(root), "leaving it out")
    return folder_data(root, name, read_folder(root))


def resolve(config: DataConfig, argument: str, pattern: str) -> Path:
    """The path of the argument, relative to ``root`` when there is one; without an argument ``root`` itself."""
    root = Path(config.root).expanduser() if config.root is not None else None
    if not argument and root is None:
        raise expected("data.name", f"{pattern} with a path", config.name, pattern.replace("PATH", "path/to/images"))
    path = Path(argument).expanduser()
    return path if root is None else root / path


def read_folder(root: Path) -> Found:
    """List the images of a folder, by class and, where given, split."""
    folders = _folders(root)
    split_of = {f: SPLIT_NAMES.get(f.name.lower()) for f in folders}
    given = any(split_of.values())
    if given:
        _check_splits(root, [f.name for f in folders], list(split_of.values()))
    found = Found([], [], [] if given else None, Counter())
    for place in (root, *(folders if given else ())):
        loose = sum(kind_of(p) is not None and p.is_file() for p in place.iterdir())
        if loose:
            found.ignored[f"outside the class folders ({place.relative_to(root.parent).as_posix()})"] += loose
    if not given:
        for folder in folders:
            _add(found, root, folder, folder.name, None)
        return found
    for folder in folders:
        for inner in _folders(folder):
            _add(found, root, inner, inner.name, split_of[folder])
    return found


def _check_splits(root: Path, names: list[str], splits: list[str | None]) -> None:
    """Folders are either all splits, each once and with training among them, or all classes."""
    where = f"data folder:{root}"
    if not all(splits):
        strays = ", ".join(name for name, split in zip(names, splits, strict=True) if not split)
        got = Quoted(f"splits next to other folders: {strays}")
        raise expected(where, "only train, val and test, or only classes", got, "moving or renaming them")
    if len(set(splits)) < len(splits) or "train" not in splits:
        raise expected(where, "train, and at most one val and one test next to it", names)


def _folders(root: Path) -> list[Path]:
    return sorted((p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")), key=lambda p: p.name)


def _add(found: Found, root: Path, folder: Path, label: str, split: str | None) -> None:
    files = []
    for place, inner, names in os.walk(folder, onerror=_raise):
        inner[:] = [name for name in inner if not name.startswith(".")]
        files += [Path(place) / name for name in names if not name.startswith(".")]
    images = sorted((f for f in files if kind_of(f)), key=lambda f: f.relative_to(root).as_posix())
    found.ignored.update(f.suffix or f.name for f in files if not kind_of(f))
    found.paths += images
    found.classes += [label] * len(images)
    if not images:  # an empty class folder counts as a class without images
        found.ignored[f"{folder.relative_to(root).as_posix()} (empty)"] += 1
    if found.splits is not None and split is not None:
        found.splits += [split] * len(images)


def _raise(error: OSError) -> None:
    raise expected(f"data folder {error.filename}", "a folder that can be read", Quoted(str(error.strerror)))


def folder_data(root: Path, name: str, found: Found) -> RawData:
    """Raw data from the files of a folder."""
    where = f"data {name}"
    if not found.paths:
        hint = f"files that end in {', '.join(SUFFIXES)}"
        raise expected(where, "a sub-folder of images for each class", "no image", hint)
    train = [c for i, c in enumerate(found.classes) if found.splits is None or found.splits[i] == "train"]
    empty = [f.name for f in _folders(root) if f.name not in found.classes] if found.splits is None else []
    if empty:
        raise expected(where, "images in each class folder", Quoted(f"none in {', '.join(empty)}"), "removing them")
    classes = tuple(sorted(set(train)))
    strangers = sorted(set(found.classes) - set(classes))
    if strangers:
        raise expected(where, "classes that the training split has", Quoted(", ".join(strangers)), "adding images")
    ids = [p.relative_to(root).as_posix() for p in found.paths]
    numbers = {label: i for i, label in enumerate(classes)}
    events = []
    if found.ignored:
        what = ", ".join(f"{n} {suffix}" for suffix, n in sorted(found.ignored.items()))
        events.append(event("ignored", f"not read as images: {what}"))
    return RawData(
        name=name,
        task="classification",
        classes=classes,
        images=FileImages(found.paths, ids),
        targets=np.array([numbers[label] for label in found.classes], dtype=np.int64),
        ids=ids,
        given=found.splits,
        source="a folder of the user",
        licence="not known",
        notes=NOTES,
        events=events,
    )
