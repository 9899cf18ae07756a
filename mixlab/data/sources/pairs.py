"""Image and mask pairs in a folder, for ``folder:PATH``.

* ``PATH/images/NAME.png`` and ``PATH/masks/NAME.png`` (or .tif, .nii.gz; the two may differ), with sub-folders or not;
* ``train``, ``val`` and ``test`` above the two, or ``PATH/index.json`` (or ``splits.json``) with ``{"splits": {"train":
  [names], ...}}`` (``splits.json`` without the word ``splits``); otherwise splits are drawn;
* ``"groups": {name: group}`` in the same file: images of a group, such as a patient, are never divided;
* ``PATH/masks/STRUCTURE/NAME.png``: overlapping structures, a folder each, where every value above 0 is the structure;
  an image without a file there has not that structure;
* what values mean: :mod:`mixlab.data.mask_classes`; ``data.instances`` for masks that number their objects.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixlab.data.card import Event, event
from mixlab.data.config import DataConfig
from mixlab.data.files import FileImages
from mixlab.data.mask_classes import BACKGROUND, MaskClasses, guessed, read_classes, read_json
from mixlab.data.mask_files import INSTANCES, FileMasks, PlaneFiles, values_of
from mixlab.data.masks import IGNORE
from mixlab.data.raw import SPLITS, RawData
from mixlab.data.readers import SUFFIXES, kind_of
from mixlab.errors import Quoted, expected

IMAGES, MASKS = "images", "masks"
NOTES = (
    "8- and 16-bit images are divided by the largest value of their type; floats, NIfTI and DICOM are scaled by the "
    "image's own 0.5 and 99.5 percentiles",
    "images of unknown origin: no mirroring is assumed to be harmless",
)


def has_pairs(root: Path) -> bool:
    """Whether a folder, or a folder of a split in it, has ``images`` and ``masks``."""
    inner = [p for p in root.iterdir() if p.is_dir()] if root.is_dir() else []
    return any((place / IMAGES).is_dir() and (place / MASKS).is_dir() for place in (root, *inner))


@dataclass
class Pairs:
    """Images of a folder, by name, with what belongs to each."""

    names: list[str] = field(default_factory=list)
    images: list[Path] = field(default_factory=list)
    masks: list[dict[str, Path]] = field(default_factory=list)
    """For each image the mask under ``""``, or masks by structure."""
    given: list[str] | None = None


def open_pairs(config: DataConfig, root: Path, name: str, splits: Mapping[str, str | None]) -> RawData:
    """The pairs of a folder.

    Args:
        config: the data configuration.
        root: the folder.
        name: name of the set.
        splits: the split that each sub-folder of ``root`` is, where it is one.

    Raises:
        UserError: an image without mask, a mask without image, a class file or split file that is wrong, broken files.
    """
    where = f"data {name}"
    found, events = Pairs(), []
    levels = {folder: split for folder, split in splits.items() if split is not None}
    for folder in levels or [""]:
        events += _add(found, root / folder, folder, levels.get(folder), where)
    if not found.names:
        raise expected(where, f"images in {IMAGES}", "none", f"files that end in {', '.join(SUFFIXES)}")
    groups = _split_file(found, root, where)
    ids = [f"{n}{image.name.removeprefix(Path(n).name)}" for n, image in zip(found.names, found.images, strict=True)]
    images = FileImages(found.images, ids)
    structures = sorted({s for masks in found.masks for s in masks})
    common: dict[str, Any] = {"name": name, "task": "segmentation", "images": images, "ids": ids, "given": found.given,
              "groups": groups, "source": "a folder of the user", "licence": "not known", "notes": NOTES,
              "spacing": images.spacing}  # fmt: skip
    if structures != [""]:
        planes = PlaneFiles([[masks.get(s) for s in structures] for masks in found.masks], ids)
        events += [_absent(found, s) for s in structures if any(s not in masks for masks in found.masks)]
        return RawData(**common, classes=tuple(structures), targets=planes, overlapping=True, events=events)
    paths = [masks[""] for masks in found.masks]
    classes, told = _classes(config, root, paths, ids, where)
    return RawData(
        **common,
        classes=classes.names,
        targets=FileMasks(paths, [f"mask of {i}" for i in ids], classes, instances=config.instances),
        background=classes.background,
        ignore_label=IGNORE if classes.ignored is not None else None,
        events=[*events, *told],
    )


def _add(found: Pairs, place: Path, folder: str, split: str | None, where: str) -> list[Event]:
    """The pairs of one place; what is ignored there."""
    for part in (IMAGES, MASKS):
        if not (place / part).is_dir():
            raise expected(where, f"{IMAGES} and {MASKS} in {folder or 'the folder'}", f"no {part}")
    ignored: Counter[str] = Counter()
    images = _files(place / IMAGES, where, ignored)
    masks = _masks(place / MASKS, images, where, ignored)
    alone = [f"image {n} without mask" for n in images if n not in masks]
    alone += [f"mask {n} without image" for n in masks if n not in images]
    if alone:
        got = Quoted("\n  ".join([f"{len(alone)} alone:", *alone[:50], *(["..."] if len(alone) > 50 else [])]))
        raise expected(where, "a mask for each image and an image for each mask, of the same name", got)
    found.names += [f"{folder}/{n}" if folder else n for n in images]
    found.images += images.values()
    found.masks += [masks[n] for n in images]
    if split is not None:
        found.given = [*(found.given or []), *[split] * len(images)]
    what = ", ".join(f"{n} {suffix}" for suffix, n in sorted(ignored.items()))
    return [event("ignored", f"not read as images: {what}")] if ignored else []


def _files(folder: Path, where: str, ignored: Counter[str]) -> dict[str, Path]:
    """Image files by their path in the folder without suffix, in order."""
    files = []
    for place, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if not name.startswith(".")]
        files += [Path(place) / name for name in names if not name.startswith(".")]
    ignored.update(f.suffix or f.name for f in files if not kind_of(f))
    named: dict[str, Path] = {}
    for file in sorted((f for f in files if kind_of(f)), key=lambda f: f.relative_to(folder).as_posix()):
        name = stem(file.relative_to(folder).as_posix())
        if name in named:
            raise expected(where, f"each name once in {folder.name}", [named[name].name, file.name])
        named[name] = file
    return named


def stem(name: str) -> str:
    """A file's name without the suffix of its format: ``case1`` of ``case1.nii.gz``."""
    suffix = max((s for s in SUFFIXES if name.lower().endswith(s)), key=len, default="")
    return name[: len(name) - len(suffix)]


def _masks(folder: Path, images: Mapping[str, Path], where: str, ignored: Counter[str]) -> dict[str, dict[str, Path]]:
    """Masks of each image: one under ``""``, or one for each structure that has a folder."""
    files = _files(folder, where, ignored)
    structured = bool(files) and not any(n in images for n in files) and all("/" in n for n in files)
    if not structured:
        return {n: {"": path} for n, path in files.items()}
    found: dict[str, dict[str, Path]] = {}
    for name, path in files.items():
        structure, _, inner = name.partition("/")
        found.setdefault(inner, {})[structure] = path
    return found


def _absent(found: Pairs, structure: str) -> Event:
    absent = sum(structure not in masks for masks in found.masks)
    return event("masks", f"{absent} of {len(found.masks)} images have no file in {MASKS}/{structure}: taken as empty")


def _split_file(found: Pairs, root: Path, where: str) -> list[str] | None:
    """Put the splits of a file into ``found``; the groups of the file, if it has any."""
    for file in ("index.json", "splits.json"):
        if not (root / file).is_file():
            continue
        content = read_json(root / file)
        if not isinstance(content, Mapping):
            raise expected(f"{where}, {file}", '{"splits": {"train": [names], ...}}', type(content).__name__)
        splits = content.get("splits", content if file == "splits.json" else None)
        if splits is None and "groups" not in content:
            continue
        if splits is not None and found.given is None:
            found.given = given_splits(splits, found.names, f"{where}, {file}")
        groups = content.get("groups")
        if groups is not None:
            missing = [n for n in found.names if n not in groups]
            if missing:
                raise expected(f"{where}, {file}, groups", "a group for each image", f"none for {missing[:5]}")
        return None if groups is None else [str(groups[n]) for n in found.names]
    return None


def given_splits(splits: Mapping[str, Sequence[str]], names: Sequence[str], where: str) -> list[str]:
    """The split of each image, from ``{"train": [names], "val": ..., "test": ...}``.

    Raises:
        UserError: an image is in no split or in several, or a name or split is unknown.
    """
    lists = {s: [stem(str(n)) for n in splits[s]] for s in SPLITS if s in splits}
    counts = Counter(n for listed in lists.values() for n in listed)
    faults = [f"{n} in no split" for n in names if n not in counts]
    faults += [f"{n} in several splits" for n, count in counts.items() if count > 1]
    faults += [f"{n}: no such image" for n in counts if n not in set(names)]
    faults += [f"{s}: no such split" for s in splits if s not in SPLITS]
    if faults:
        shown = "\n  ".join([f"{len(faults)} at fault:", *faults[:20]])
        raise expected(where, "each image in one of train, val and test", Quoted(shown))
    split_of = {n: s for s, listed in lists.items() for n in listed}
    return [split_of[n] for n in names]


def _classes(
    config: DataConfig, root: Path, paths: Sequence[Path], ids: Sequence[str], where: str
) -> tuple[MaskClasses, list[Event]]:
    """What the masks' values mean, and what was taken for granted."""
    named = read_classes(root)
    if config.instances:
        if named is not None and (len(named.names) != 2 or named.background != 0):
            raise expected(f"{where}, data.instances", f"no class file, or {BACKGROUND} and one class", named.names)
        told = event("masks", "every value above 0 is the object: instances are not told apart")
        return (INSTANCES if named is None else MaskClasses(named.names, (0, 1))), [told]
    if named is not None:
        return named, []
    classes = guessed(values_of(paths, [f"mask of {i}" for i in ids]), where)
    message = f"no class file: values 0 to {len(classes.names) - 1} taken as classes, and 0 as {BACKGROUND}"
    return classes, [event("masks", message)]
