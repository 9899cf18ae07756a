"""Structures drawn in CVAT: polygons and run lengths of its XML files, "CVAT for images 1.1".

A file is ``<annotations>`` with ``<image name width height>``, and in each image any number of

* ``<polygon label points="x,y;x,y;...">``, in pixels from the image's upper left corner, so that the centre of the
  first pixel is (0.5, 0.5); a pixel belongs to the structure if its centre is inside (even-odd rule);
* ``<mask label rle left top width height>``: runs of pixels outside and inside in turn, row by row of a box.

What is drawn may be said by the shape's label, or by an ``<attribute name="...">`` of it. Shapes of one structure are
united.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from mixlab.data.images import Array
from mixlab.data.masks import digest
from mixlab.errors import Quoted, expected


@dataclass
class Drawn:
    """The shapes of one image."""

    name: str
    size: tuple[int, int]
    """(H, W)"""
    polygons: list[tuple[str, Array]] = field(default_factory=list)
    """Structure and points ``(N, 2)`` as (x, y)."""
    runs: list[tuple[str, tuple[int, int, int, int], Array]] = field(default_factory=list)
    """Structure, box (left, top, width, height) and lengths of the runs."""

    @property
    def structures(self) -> set[str]:
        """Names of what is drawn."""
        return {name for name, _ in self.polygons} | {name for name, _, _ in self.runs}

    def mask(self, structures: Sequence[str]) -> Array:
        """``(K, H, W)`` of 0 and 1, uint8; what has no shape is empty."""
        found = np.zeros((len(structures), *self.size), dtype=np.uint8)
        place = {name: k for k, name in enumerate(structures)}
        for name, points in self.polygons:
            if name in place:
                fill_polygon(found[place[name]], points)
        for name, box, lengths in self.runs:
            if name in place:
                fill_runs(found[place[name]], box, lengths)
        return found


def read_cvat(path: Path, attribute: str | None = None) -> list[Drawn]:
    """The images of a file and what is drawn in them.

    Args:
        path: the XML file.
        attribute: the attribute that says what a shape is; the label of shapes without it.

    Raises:
        UserError: it is no such file; the message names the image where one is at fault.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise expected(str(path), "an XML file of CVAT", Quoted(str(error))) from None
    if root.tag != "annotations":
        raise expected(str(path), "<annotations>, as CVAT for images 1.1 writes it", f"<{root.tag}>")
    found = []
    for image in root.iter("image"):
        name = image.get("name", "")
        try:
            drawn = Drawn(name, (int(image.attrib["height"]), int(image.attrib["width"])))
            for shape in image:
                _add(drawn, shape, attribute)
        except (KeyError, ValueError) as error:
            where = f"{path.name}, image {name!r}"
            raise expected(where, "shapes of CVAT for images 1.1", Quoted(repr(error))) from None
        found.append(drawn)
    return found


def _add(drawn: Drawn, shape: ElementTree.Element, attribute: str | None) -> None:
    said = {a.get("name"): (a.text or "").strip() for a in shape.iter("attribute")}
    name: str = said.get(attribute) or shape.get("label") or ""
    if shape.tag == "polygon":
        points = np.array([[float(v) for v in pair.split(",")] for pair in shape.attrib["points"].split(";")])
        if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
            raise ValueError(f"a polygon of {name} with the points {shape.attrib['points'][:40]}")
        drawn.polygons.append((name, points))
    elif shape.tag == "mask":
        left, top, width, height = (int(float(shape.attrib[key])) for key in ("left", "top", "width", "height"))
        lengths = np.array([int(v) for v in shape.attrib["rle"].split(",")])
        inside = left >= 0 and top >= 0 and left + width <= drawn.size[1] and top + height <= drawn.size[0]
        if not inside or lengths.sum() > width * height:
            raise ValueError(f"a mask of {name} that leaves its box or the image")
        drawn.runs.append((name, (left, top, width, height), lengths))


def fill_polygon(mask: Array, points: Array) -> None:
    """Set the pixels of ``(H, W)`` whose centres are inside the polygon ``(N, 2)`` of (x, y)."""
    x, y = points.T
    next_x, next_y = np.roll(points, -1, axis=0).T
    first, last = int(np.floor(y.min())), int(np.ceil(y.max()))
    for row in range(max(first, 0), min(last, len(mask))):
        centre = row + 0.5
        crossed = (y <= centre) != (next_y <= centre)
        share = (centre - y[crossed]) / (next_y[crossed] - y[crossed])
        borders = np.sort(x[crossed] + share * (next_x[crossed] - x[crossed]))
        for left, right in np.ceil(borders - 0.5).astype(int).clip(0).reshape(-1, 2):
            mask[row, left:right] = 1


def fill_runs(mask: Array, box: tuple[int, int, int, int], lengths: Array) -> None:
    """Set the pixels of runs within a box; runs are outside and inside in turn."""
    left, top, width, height = box
    inside = np.repeat(np.arange(len(lengths)) % 2, lengths).astype(np.uint8)
    pixels = np.zeros(width * height, dtype=np.uint8)
    pixels[: len(inside)] = inside
    mask[top : top + height, left : left + width] |= pixels.reshape(height, width)


class CvatMasks:
    """Overlapping structures that are drawn in images.

    Args:
        drawn: the shapes of each case.
        structures: what to look for, in the order of the planes.
        mirrored: cases whose left and right are exchanged.
    """

    def __init__(self, drawn: Sequence[Drawn], structures: Sequence[str], mirrored: Sequence[bool]) -> None:
        self.drawn = list(drawn)
        self.structures = list(structures)
        self.mirrored = list(mirrored)
        self.shapes: Sequence[tuple[int, ...]] = [d.size for d in drawn]

    def __len__(self) -> int:
        return len(self.drawn)

    def read(self, index: int) -> Array:
        """``(K, H, W)`` of 0 and 1, uint8."""
        mask = self.drawn[index].mask(self.structures)
        return mask[..., ::-1] if self.mirrored[index] else mask

    def digest(self, mask: Array) -> str:
        """Of the structures."""
        return digest(mask)
