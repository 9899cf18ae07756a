"""``decathlon:TaskXX``: a task of the Medical Segmentation Decathlon, as slices or as volumes.

``decathlon:Task04`` is axial slices; ``decathlon:Task04@coronal``, ``@sagittal`` and ``@3d`` are the others. ``root``
is a folder that holds ``Task04_Hippocampus`` as its archive unpacks, or that folder itself::

    Task04_Hippocampus/dataset.json     labels, modality, training: [{image, label}, ...]
    Task04_Hippocampus/imagesTr/*.nii.gz
    Task04_Hippocampus/labelsTr/*.nii.gz
    Task04_Hippocampus/splits.json      of your own, not the authors': {"train": [cases], "val": ..., "test": ...}

All slices of a case are one group and in one split. The authors' ``imagesTs`` have no public labels and are not read.
Without ``splits.json`` splits of cases are drawn. A fourth axis (Task01, Task05) is the channels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixlab.data.card import DataCard
from mixlab.data.config import DataConfig
from mixlab.data.files import FileImages
from mixlab.data.mask_classes import as_classes, read_json
from mixlab.data.mask_files import FileMasks
from mixlab.data.raw import RawData
from mixlab.data.slices import AXES, MaskSlices, VolumeSlices
from mixlab.data.sources import register_dataset
from mixlab.data.sources.pairs import given_splits, stem
from mixlab.errors import Quoted, expected

PATTERN = "decathlon:TaskXX[@axial|coronal|sagittal|3d]"
URL = "http://medicaldecathlon.com"
HOW = f"the task's archive from {URL}, unpacked"
LICENCE = "CC BY-SA 4.0"
CITATION = "Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13:4128, 2022"
NOTES = (
    "each volume's own 0.5 and 99.5 percentiles become 0 and 1, in each channel: CT loses its absolute scale",
    "volumes are turned to RAS and not resampled: spacing may differ from case to case",
)
SLICES = "slices of a case are one group; scores of slices are not scores of volumes"


def _parse(argument: str) -> tuple[str, str]:
    """The task's number and how it is cut."""
    task, _, plane = argument.partition("@")
    match = re.fullmatch(r"task(\d\d)(_\w+)?", task, re.IGNORECASE)
    plane = plane.lower() or "axial"
    if match is None or plane not in (*AXES, "3d"):
        got = f"decathlon:{argument}"
        raise expected("data.name", "Task and two digits, and axial, coronal, sagittal or 3d", got, "decathlon:Task04")
    return match[1], plane


def describe(argument: str) -> DataCard:
    """There is no card without the files: classes and channels are in them.

    Raises:
        UserError: always.
    """
    _parse(argument)
    raise expected(f"card of decathlon:{argument}", "its files", None, "opening it: its card is made from them")


def _folder(config: DataConfig, number: str) -> Path | None:
    """The task's folder, or None."""
    root = (Path(config.root) if config.root is not None else Path.home() / ".mixlab" / "decathlon").expanduser()
    if not root.is_dir():
        return None
    inner = sorted(p for p in root.iterdir() if p.is_dir())
    for place in (root, *inner):
        if place.resolve().name.lower().startswith(f"task{number}") and (place / "dataset.json").is_file():
            return place
    return None


def at_hand(config: DataConfig, argument: str) -> bool:
    """Whether the task's ``dataset.json`` is there."""
    return _folder(config, _parse(argument)[0]) is not None


@register_dataset("decathlon", pattern=PATTERN, describe=describe, at_hand=at_hand)
def open_decathlon(config: DataConfig, argument: str) -> RawData:
    """The labelled cases of a task.

    Raises:
        UserError: the task is not there, ``dataset.json`` or ``splits.json`` is wrong, files are missing or broken.
    """
    number, plane = _parse(argument)
    where = f"data decathlon:{argument}"
    folder = _folder(config, number)
    if folder is None:
        want = f"a folder Task{number}_... with dataset.json, imagesTr and labelsTr"
        raise expected(where, want, Quoted(f"none in {config.root}"), f"--data-root FOLDER with {HOW}")
    about = read_json(folder / "dataset.json")
    cases = _cases(about, folder, where)
    classes = as_classes(about["labels"], folder / "dataset.json")
    names = [stem(Path(image).name) for image, _ in cases]
    images, labels = ([folder / pair[i] for pair in cases] for i in (0, 1))
    split = folder / "splits.json"
    given = given_splits(read_json(split), names, f"{where}, {split.name}") if split.is_file() else None
    facts: dict[str, Any] = {
        "name": f"decathlon:{folder.resolve().name}@{plane}",
        "task": "segmentation",
        "classes": classes.names,
        "background": classes.background,
        "source": f"Medical Segmentation Decathlon, {about.get('name', folder.name)} ({URL})",
        "licence": str(about.get("licence", about.get("license", LICENCE))),
        "citation": CITATION,
        "splits": "given by splits.json, which is not the authors'",
    }
    if plane == "3d":
        volumes = FileImages(images, names)
        masks = FileMasks(labels, [f"label of {n}" for n in names], classes)
        return RawData(
            **facts, images=volumes, targets=masks, ids=names, given=given, spacing=volumes.spacing, notes=NOTES
        )
    slices = VolumeSlices(images, names, plane)
    return RawData(
        **facts,
        images=slices,
        targets=MaskSlices(labels, [f"label of {n}" for n in names], slices, classes),
        ids=[f"{names[v]}/{place:03d}" for v, place in slices.places],
        given=None if given is None else [given[v] for v, _ in slices.places],
        groups=[names[v] for v, _ in slices.places],
        spacing=slices.spacing,
        plane=plane,
        notes=(*NOTES, SLICES),
    )


def _cases(about: Any, folder: Path, where: str) -> list[tuple[str, str]]:
    """Image and label of each training case, relative to the folder."""
    faults = [] if isinstance(about, Mapping) else ["no object"]
    if not faults:
        faults = [f"no {key}" for key in ("labels", "training") if not about.get(key)]
    if faults:
        raise expected(f"{where}, dataset.json", "labels, and training with image and label of each case", faults)
    try:
        cases = [(str(pair["image"]), str(pair["label"])) for pair in about["training"]]
    except (TypeError, KeyError):
        raise expected(f"{where}, training", "{image, label} of each case", about["training"][:2]) from None
    absent = [path for pair in cases for path in pair if not (folder / path).is_file()]
    if absent:
        got = Quoted(f"{len(absent)} missing ({', '.join(absent[:5])})")
        raise expected(where, "the files that dataset.json names", got, HOW)
    return cases
