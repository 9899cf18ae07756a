"""``grazpedwri-bones``: 17 bones in frontal X-rays of children's wrists, which may overlap.

The images are GRAZPEDWRI-DX's (:mod:`mixlab.data.sources.grazpedwri`); the bones were drawn by Keuth et al. and are
published with their program: https://github.com/multimodallearning/SamCarriesTheBurden, ``data/cvat_annotation_xml``.
``root`` is a folder with::

    cvat_annotation_xml/annotations_train1.xml, annotations_train2.xml, annotations_val.xml, annotations_test.xml
    images_part1/FILESTEM.png ... images_part4/FILESTEM.png        (or all in images/, or in the folder itself)
    dataset.csv                                                     (the images' authors' table; may be absent)

How the files are read (their layout is known, the images were not at hand when this was written): what a polygon is
stands in its attribute ``Anatomie``; shapes of a bone are united; other bones, of fingers and growth plates of the
hand, are left out. The splits are those of the files' names. Images that the table calls lateral are left out, and
right wrists, as the file names say, are mirrored, so that all are left: the study did both. The authors mirrored and
reduced the images beforehand; here it is done while reading, from the images as they are distributed. Pixel spacing is
the table's ``pixel_spacing`` where it is one number below 1.
"""

from __future__ import annotations

import csv
import hashlib
import re
from pathlib import Path

import numpy as np

from mixlab.data.card import DataCard, Event, event
from mixlab.data.config import DataConfig
from mixlab.data.cvat import CvatMasks, Drawn, read_cvat
from mixlab.data.files import FileImages
from mixlab.data.images import Array
from mixlab.data.raw import RawData
from mixlab.data.sources import register_dataset
from mixlab.data.sources.grazpedwri import CITATION as IMAGES_CITATION
from mixlab.data.sources.grazpedwri import SOURCE as IMAGES_SOURCE
from mixlab.data.sources.grazpedwri import TABLE, find_images, root_of
from mixlab.errors import Quoted, expected

NAME = "grazpedwri-bones"
BONES = (
    "Epiphyse Radius", "Epiphyse Ulna", "Os capitatum", "Os hamatum", "Os lunatum", "Os pisiforme", "Os scaphoideum",
    "Os trapezium", "Os trapezoideum", "Os triquetrum", "Ossa metacarpalia I", "Ossa metacarpalia II",
    "Ossa metacarpalia III", "Ossa metacarpalia IV", "Ossa metacarpalia V", "Radius", "Ulna",
)  # fmt: skip
ATTRIBUTE = "Anatomie"
FOLDERS = ("cvat_annotation_xml", "data/cvat_annotation_xml", ".")
URL = "https://github.com/multimodallearning/SamCarriesTheBurden"
SPLITS = "the authors', by the names of their XML files"
NOTES = (
    "right wrists are mirrored: all are shown as left ones",
    "the published study trained on the files train1 and train2, and tested on val and test together",
    "images are of varying size; the study used image_size [384, 224]",
    "bones may overlap; the epiphyses of radius and ulna are structures of their own",
)


def describe(_argument: str = "") -> DataCard:
    """The card without the images."""
    return DataCard(
        name=NAME, task="segmentation", classes=BONES, channels=1, spatial_dims=2, overlapping=True, splits=SPLITS,
        source=f"{IMAGES_SOURCE}; bones: {URL}", licence="images CC BY 4.0; bones: see the repository",
        citation=f"{IMAGES_CITATION}; Keuth et al., SAM Carries the Burden, 2024", notes=NOTES,
    )  # fmt: skip


def _folder(config: DataConfig) -> Path | None:
    return next((p for f in FOLDERS if list((p := root_of(config) / f).glob("annotations_*.xml"))), None)


def at_hand(config: DataConfig, _argument: str) -> bool:
    """Whether the drawn bones are there."""
    return _folder(config) is not None


@register_dataset(NAME, describe=describe, at_hand=at_hand)
def open_bones(config: DataConfig, _argument: str) -> RawData:
    """The X-rays with drawn bones; nothing is ever fetched.

    Raises:
        UserError: XML files or images are not there, a file is broken, or a drawing has another size than its image.
    """
    root, folder = root_of(config), _folder(config)
    if folder is None:
        hint = f"--data-root FOLDER with the folder data/cvat_annotation_xml of {URL} and the images of {IMAGES_SOURCE}"
        raise expected(f"data {NAME}", f"annotations_*.xml in {FOLDERS[0]}", Quoted(f"none in {root}"), hint)
    drawn, given = _read(folder)
    drawn, given, events, spacing = _frontal(root, drawn, given)
    stems = [_stem(d) for d in drawn]
    paths = find_images(root, stems, f"data {NAME}")
    mirrored = [_is_right(s) for s in stems]
    raw = RawData.from_card(
        describe(),
        images=MirroredImages(paths, [p.name for p in paths], mirrored),
        targets=CvatMasks(drawn, BONES, mirrored),
        ids=stems,
        given=given,
    )
    patients = [s.partition("_")[0] for s in stems]
    divided = {p for p in patients if len({g for g, q in zip(given, patients, strict=True) if p == q}) > 1}
    if divided:  # the authors' splits stay, and the card says what is wrong with them
        raw.leaks = (f"{len(divided)} patients are in several of the authors' splits",)
    else:
        raw.groups = patients
    raw.spacing = [spacing.get(s) for s in stems]
    others = sorted(set().union(*(d.structures for d in drawn)) - set(BONES))
    if others:
        events.append(event("structures", f"drawn, but not of the 17: {', '.join(others)}"))
    raw.events = events
    return raw


def _stem(drawn: Drawn) -> str:
    return Path(drawn.name).name.partition(".")[0]


def _is_right(stem: str) -> bool:
    """``0172_0304693626_01_WRI-R1_F014`` is a right wrist."""
    side = re.search(r"_WRI-([LR])\d", stem)
    if side is None:
        raise expected(f"data {NAME}, image {stem}", "a name with _WRI-L or _WRI-R", stem)
    return side[1] == "R"


def _read(folder: Path) -> tuple[list[Drawn], list[str]]:
    """What is drawn, and the split of each image."""
    drawn: list[Drawn] = []
    given: list[str] = []
    for path in sorted(folder.glob("annotations_*.xml")):
        split = re.fullmatch(r"annotations_(train|val|test)\d*", path.stem)
        if split is None:
            raise expected(f"data {NAME}", "annotations_train, _val or _test, and a number", path.name)
        found = read_cvat(path, ATTRIBUTE)
        drawn += found
        given += [split[1]] * len(found)
    names = [_stem(d) for d in drawn]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise expected(f"data {NAME}", "each image in one XML file", Quoted(f"twice: {', '.join(twice[:5])}"))
    return drawn, given


def _frontal(
    root: Path, drawn: list[Drawn], given: list[str]
) -> tuple[list[Drawn], list[str], list[Event], dict[str, tuple[float, float]]]:
    """The frontal images, as the table says, and their spacing where it has any."""
    if not (root / TABLE).is_file():
        return drawn, given, [event("images", f"no {TABLE}: lateral images, if there are any, are not left out")], {}
    with (root / TABLE).open(newline="", encoding="utf-8-sig") as file:
        rows = {row.get("filestem", ""): row for row in csv.DictReader(file)}
    kept = [i for i, d in enumerate(drawn) if rows.get(_stem(d), {}).get("projection", "1") in ("1", "1.0")]
    spacing = {}
    for name, row in rows.items():
        if re.fullmatch(r"0?\.\d+", row.get("pixel_spacing") or ""):
            spacing[name] = (float(row["pixel_spacing"]),) * 2
    left_out = len(drawn) - len(kept)
    events = [event("images", f"{left_out} lateral images are left out")] if left_out else []
    return [drawn[i] for i in kept], [given[i] for i in kept], events, spacing


class MirroredImages(FileImages):
    """Image files, some of them with left and right exchanged."""

    def __init__(self, paths: list[Path], names: list[str], mirrored: list[bool]) -> None:
        super().__init__(paths, names)
        self.mirrored = mirrored

    def read(self, index: int) -> Array:
        """The decoded file, mirrored or not."""
        image = super().read(index)
        return np.ascontiguousarray(image[..., ::-1]) if self.mirrored[index] else image

    def digest(self, index: int) -> str:
        """Of the file, and of whether it is mirrored."""
        found = super().digest(index)
        return hashlib.sha256(f"{found} mirrored".encode()).hexdigest() if self.mirrored[index] else found
