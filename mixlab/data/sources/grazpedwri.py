"""GRAZPEDWRI-DX, X-rays of wrists of children: ``grazpedwri-fracture`` (or not), ``grazpedwri-fracture:multilabel``.

``root`` is a folder with the authors' table ``dataset.csv`` and their images ``FILESTEM.png``, in the folder itself or
in ``images``, ``images_part1`` ... ``images_part4`` below it, as the archives unpack. Labels are columns of the table:

* binary: ``fracture_visible`` is 1, or empty;
* multilabel: where a fracture is visible, the bones and parts that ``ao_classification`` names (AO's paediatric
  classification: ``23r-M/2.1`` is the distal radius' metaphysis, a code without r or u is both bones); images without a
  visible fracture have no label.

The set has no official split. One is drawn that never divides a patient.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixlab.data.card import DataCard, Event, event
from mixlab.data.config import DataConfig
from mixlab.data.files import FileImages
from mixlab.data.raw import RawData
from mixlab.data.sources import register_dataset
from mixlab.errors import Quoted, expected

TABLE, COLUMNS = "dataset.csv", ("filestem", "patient_id", "fracture_visible", "ao_classification")
FOLDERS = (".", "images", *(f"images_part{i}" for i in range(1, 5)))
BINARY = ("no fracture", "fracture")
BONES, PARTS = {"r": ("radius",), "u": ("ulna",), "": ("radius", "ulna")}, {"E": "epiphysis", "M": "metaphysis"}
LABELS = (
    "radius epiphysis", "radius metaphysis", "radius shaft", "ulna epiphysis", "ulna metaphysis", "ulna shaft", "other",
)  # fmt: skip
OFFICIAL_IMAGES = 20_327
URL = "https://doi.org/10.6084/m9.figshare.14825193"
HOW = f"{TABLE} and the images of images_part1.zip to images_part4.zip, from {URL}, unpacked into one folder"
SOURCE = f"GRAZPEDWRI-DX, Medical University of Graz ({URL})"
LICENCE = "CC BY 4.0"
CITATION = (
    "Nagy et al., A pediatric wrist trauma X-ray dataset (GRAZPEDWRI-DX) for machine learning, "
    "Scientific Data 9:222, 2022"
)
NOTES = (
    "X-rays of varying size, 16 bits deep: image_size is needed",
    "a mirrored wrist is one of the other hand; the letters L and R on the film are then mirrored too",
    "casts and metal are visible in many follow-up images, and go with fractures",
    "images whose diagnosis_uncertain is 1 are kept",
)


def describe(argument: str = "") -> DataCard:
    """The card without the images."""
    multilabel = _is_multilabel(argument)
    return DataCard(
        name="grazpedwri-fracture" + (":multilabel" if multilabel else ""),
        task="multilabel" if multilabel else "classification",
        classes=LABELS if multilabel else BINARY,
        channels=1, spatial_dims=2, flips=(1,), splits="seeded, stratified, no patient in two splits",
        source=SOURCE, licence=LICENCE, citation=CITATION, notes=NOTES,
    )  # fmt: skip


def _is_multilabel(argument: str) -> bool:
    if argument not in ("", "binary", "multilabel"):
        raise expected("labels of grazpedwri-fracture", "binary or multilabel", argument, "grazpedwri-fracture")
    return argument == "multilabel"


def table_at_hand(config: DataConfig, argument: str) -> bool:
    """Whether the authors' table is there; images that it names and that are not are a broken set."""
    _is_multilabel(argument)
    return (root_of(config) / TABLE).exists()


@register_dataset(
    "grazpedwri-fracture",
    pattern="grazpedwri-fracture[:binary|multilabel]",
    names=lambda: ["grazpedwri-fracture"],
    describe=describe,
    at_hand=table_at_hand,
)
def open_grazpedwri(config: DataConfig, argument: str) -> RawData:
    """The X-rays under the local root; nothing is ever fetched.

    Raises:
        UserError: the table or images are not there, a column is missing, or a label is neither empty, 0 nor 1.
    """
    card = describe(argument)
    root = root_of(config)
    rows = read_table(root / TABLE)
    paths = find_images(root, [row["filestem"] for row in rows])
    visible = _visible(rows)
    events = _said(rows, visible)
    if card.task == "multilabel":
        targets, odd = _labels(rows, visible)
        events += odd
    else:
        targets = visible.astype(np.int64)
    raw = RawData.from_card(
        card,
        images=FileImages(paths, [path.relative_to(root).as_posix() for path in paths]),
        targets=targets,
        ids=[row["filestem"] for row in rows],
        given=None,
    )
    raw.groups = [row["patient_id"] for row in rows]
    raw.events = events
    return raw


def root_of(config: DataConfig) -> Path:
    """The folder that holds the authors' files."""
    return (Path(config.root) if config.root is not None else Path.home() / ".mixlab" / "grazpedwri-dx").expanduser()


def read_table(table: Path) -> list[dict[str, str]]:
    """The rows of the authors' table with stripped values.

    Raises:
        UserError: there is none, it lacks a column or a value that identifies a case, or names an image twice.
    """
    where = "data grazpedwri-fracture"
    if not table.is_file():
        hint = f"--data-root FOLDER with {HOW}"
        raise expected(where, f"the authors' table {TABLE} and images", Quoted(f"no {table}"), hint)
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = [c.strip() for c in reader.fieldnames or ()]
        missing = [c for c in COLUMNS if c not in columns]
        if missing:
            got = Quoted(f"no {', '.join(missing)} among {', '.join(columns) or 'no columns'}")
            raise expected(f"{where}, {table}", f"the columns {', '.join(COLUMNS)}", got, f"the table of {URL}")
        values = [[(v or "").strip() for v in row.values()] for row in reader]
    rows = [dict(zip(columns, row, strict=False)) for row in values]
    bad = [str(i + 2) for i, row in enumerate(rows) if not row["filestem"] or not row["patient_id"]]
    if bad or not rows:
        got = Quoted(f"none in line {', '.join(bad[:20])}" if rows else "an empty table")
        raise expected(f"{where}, {table}", "a filestem and a patient_id in each line", got)
    twice = [stem for stem, count in Counter(row["filestem"] for row in rows).items() if count > 1]
    if twice:
        raise expected(f"{where}, {table}", "each image once", Quoted(f"twice: {', '.join(twice[:10])}"))
    return rows


def find_images(root: Path, stems: list[str], where: str = "data grazpedwri-fracture") -> list[Path]:
    """The image of each case.

    Raises:
        UserError: some are not there; the message says how many and names the first.
    """
    there: dict[str, Path] = {}
    for folder in FOLDERS:
        for path in sorted((root / folder).glob("*.png")):
            there.setdefault(path.stem, path)
    absent = [stem for stem in stems if stem not in there]
    if absent:
        names = ", ".join(f"{stem}.png" for stem in absent[:5]) + (", ..." if len(absent) > 5 else "")
        got = Quoted(f"{len(absent)} of {len(stems)} missing ({names})")
        places = f"{root} or in {', '.join(FOLDERS[1:])} below it"
        raise expected(where, f"the images in {places}", got, HOW)
    return [there[stem] for stem in stems]


def _visible(rows: list[dict[str, str]]) -> NDArray[np.bool_]:
    """Whether a fracture is visible, for each case."""
    kinds = {"": False, "0": False, "0.0": False, "1": True, "1.0": True}
    bad = [f"{row['filestem']} has {row['fracture_visible']!r}" for row in rows if row["fracture_visible"] not in kinds]
    if bad:
        got = Quoted(f"{len(bad)} others ({', '.join(bad[:5])})")
        raise expected("data grazpedwri-fracture, column fracture_visible", "1, 0 or nothing", got)
    return np.array([kinds[row["fracture_visible"]] for row in rows])


def _said(rows: list[dict[str, str]], visible: NDArray[np.bool_]) -> list[Event]:
    found = []
    if len(rows) != OFFICIAL_IMAGES:
        found.append(event("images", f"grazpedwri-fracture: {len(rows)} images, not the official {OFFICIAL_IMAGES}"))
    coded = np.array([bool(row["ao_classification"]) for row in rows])
    if hidden := int((coded & ~visible).sum()):
        found.append(event("labels", f"{hidden} images have an AO code but no visible fracture: taken as without one"))
    if doubtful := sum(row.get("diagnosis_uncertain", "") in ("1", "1.0") for row in rows):
        found.append(event("labels", f"the diagnosis of {doubtful} images is uncertain, as their authors say"))
    return found


def _labels(rows: list[dict[str, str]], visible: NDArray[np.bool_]) -> tuple[NDArray[np.int64], list[Event]]:
    """``(N, 7)``: the bones and parts that are fractured; and what had no place among them."""
    targets = np.zeros((len(rows), len(LABELS)), dtype=np.int64)
    for target, row, seen in zip(targets, rows, visible, strict=True):
        for label in labels_of(row["ao_classification"]) if seen else ():
            target[LABELS.index(label)] = 1
    uncoded = int((visible & ~targets.any(axis=1)).sum())
    targets[visible & ~targets.any(axis=1), LABELS.index("other")] = 1
    message = f"{uncoded} images with a visible fracture have no AO code: labelled other"
    return targets, [event("labels", message)] if uncoded else []


def labels_of(codes: str) -> list[str]:
    """Labels of AO codes such as ``23r-M/2.1; 23u-E/7``, in order; codes of other bones are ``other``."""
    found: list[str] = []
    for code in filter(None, (c.strip() for c in codes.split(";"))):
        match = re.match(r"(?:23([ru]?)-([EM])|22([ru]?)-(D))", code)
        if match is None:
            found.append("other")
            continue
        bone, part = (match[1], PARTS[match[2]]) if match[2] else (match[3], "shaft")
        found += [f"{b} {part}" for b in BONES[bone]]
    return [label for label in LABELS if label in found]
