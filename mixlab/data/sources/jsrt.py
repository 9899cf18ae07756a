"""``jsrt``: lungs, heart and clavicles in 247 chest X-rays of the JSRT, as the SCR database outlines them.

Nothing is fetched: both need registration. ``root`` is a folder with the two as they unpack::

    All247images/JPCLN001.IMG ... JPCNN093.IMG      JSRT: 2048 x 2048, 16 bits, highest byte first, no header
    scratch/fold1/masks/heart/JPCLN001.gif ...      SCR: 1024 x 1024, a folder for each structure, fold1 and fold2

Images may also lie in ``Nodule154images`` and ``NonNodule93images``, in ``images`` or in the folder itself; ``fold1``
and ``fold2`` also in ``scr/scratch``, ``scr``, or the folder itself. How they are read (the layout is that of programs
that read them; the files were not at hand when this was written): the 12-bit values are optical density, so 4095 minus
the value, over 4095, is the brightness in which bones are light; two by two pixels are averaged to the masks' size,
0.35 mm; a pixel of a mask that is not black is the structure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mixlab.data.card import DataCard, event
from mixlab.data.config import DataConfig
from mixlab.data.images import Array
from mixlab.data.mask_files import PlaneFiles
from mixlab.data.prepare import broken
from mixlab.data.raw import RawData
from mixlab.data.sources import register_dataset
from mixlab.errors import Quoted, expected

STRUCTURES = ("right lung", "left lung", "heart", "right clavicle", "left clavicle")
SIDE, WHITE = 2048, 4095
SPACING = 0.35
"""Millimetres from pixel to pixel of the masks, and of the averaged images."""
OFFICIAL_IMAGES = 247
PLACES = ("All247images", "Nodule154images", "NonNodule93images", "images", ".")
FOLDS = ("scratch", "scr/scratch", "scr", "SCR/scratch", "SCR", ".")
URLS = "http://db.jsrt.or.jp/eng.php (All247images.zip) and https://www.isi.uu.nl/Research/Databases/SCR (scr.zip)"
SPLITS = "the SCR authors' folds: fold1 (odd numbers) training, fold2 (even numbers) test"
NOTES = (
    "lungs and heart overlap with the clavicles and with each other: five masks, not one class a pixel",
    "the published study trained on 160 images and tested on the other 87, and used image_size 256 (1.4 mm)",
    "a mirrored chest has its heart on the right",
)


def describe(_argument: str = "") -> DataCard:
    """The card without the images."""
    return DataCard(
        name="jsrt", task="segmentation", classes=STRUCTURES, channels=1, spatial_dims=2, overlapping=True,
        image_size=(SIDE // 2,) * 2, spacing=(SPACING,) * 2, splits=SPLITS,
        source=f"JSRT digital image database and SCR database: {URLS}",
        licence="research and education, with citation; no redistribution and no commercial use (SCR)",
        citation="Shiraishi et al., American Journal of Roentgenology 174, 2000; van Ginneken, Stegmann and Loog, "
        "Medical Image Analysis 10, 2006",
        notes=NOTES,
    )  # fmt: skip


def _root(config: DataConfig) -> Path:
    return (Path(config.root) if config.root is not None else Path.home() / ".mixlab" / "jsrt").expanduser()


def _images(root: Path) -> dict[str, Path]:
    """Image files by name."""
    files = [f for place in PLACES for f in sorted((root / place).glob("*.[Ii][Mm][Gg]"))]
    return {f.stem.upper(): f for f in reversed(files)}


def _folds(root: Path) -> Path | None:
    return next((root / place for place in FOLDS if (root / place / "fold1" / "masks").is_dir()), None)


def at_hand(config: DataConfig, _argument: str) -> bool:
    """Whether there are images and masks."""
    return bool(_images(_root(config))) and _folds(_root(config)) is not None


@register_dataset("jsrt", describe=describe, at_hand=at_hand)
def open_jsrt(config: DataConfig, _argument: str) -> RawData:
    """The X-rays and outlines under the local root; nothing is ever fetched.

    Raises:
        UserError: images or masks are not there, an image has no mask or a mask no image, files are broken.
    """
    root = _root(config)
    images, folds = _images(root), _folds(root)
    if not images or folds is None:
        absent = " and ".join([*([] if images else ["no .IMG file"]), *([] if folds else ["no fold1/masks"])])
        want = f"images (.IMG) in {PLACES[0]} and masks in {FOLDS[0]}/fold1 and fold2"
        raise expected("data jsrt", want, Quoted(f"{absent} in {root}"), f"--data-root FOLDER with what {URLS} give")
    names = sorted(images, key=lambda name: (name[:5] != "JPCLN", name))
    masks, split_of = _masks(folds)
    alone = [f"image {n} without {s}" for n in names for s in STRUCTURES if (n, s) not in masks]
    alone += sorted({f"mask {n} without image" for n, _ in masks if n not in images})
    if alone:
        got = Quoted("\n  ".join([f"{len(alone)} alone:", *alone[:20]]))
        raise expected("data jsrt", "five masks for each image and an image for each mask", got)
    raw = RawData.from_card(
        describe(),
        images=RawXrays([images[n] for n in names], names),
        targets=PlaneFiles([[masks[n, s] for s in STRUCTURES] for n in names], names),
        ids=names,
        given=[split_of[n] for n in names],
    )
    raw.spacing = [(SPACING, SPACING)] * len(names)
    if len(names) != OFFICIAL_IMAGES:
        raw.events = [event("images", f"jsrt: {len(names)} images, not the official {OFFICIAL_IMAGES}")]
    return raw


def _masks(folds: Path) -> tuple[dict[tuple[str, str], Path], dict[str, str]]:
    """Mask of each image and structure, and the split of each image."""
    masks: dict[tuple[str, str], Path] = {}
    split_of: dict[str, str] = {}
    for fold, split in (("fold1", "train"), ("fold2", "test")):
        for structure in STRUCTURES:
            for path in sorted((folds / fold / "masks" / structure).glob("*.gif")):
                name = path.stem.upper()
                masks[name, structure] = path
                if split_of.setdefault(name, split) != split:
                    raise expected("data jsrt", "each image in one fold", f"{name} in fold1 and fold2")
    return masks, split_of


class RawXrays:
    """JSRT's files: pixels without a header.

    Raises:
        UserError: a file has another size than 2048 x 2048 pixels of two bytes; the message names them all.
    """

    in_memory = False

    def __init__(self, paths: Sequence[Path], names: Sequence[str]) -> None:
        self.paths = list(paths)
        self.names = list(names)
        need = SIDE * SIDE * 2
        sizes = [path.stat().st_size for path in self.paths]
        wrong = [f"{n}: {size} bytes, not {need}" for n, size in zip(names, sizes, strict=True) if size != need]
        if wrong:
            raise broken(wrong, len(self.paths))
        self.shapes: Sequence[tuple[int, ...]] = [(1, SIDE // 2, SIDE // 2)] * len(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> Array:
        """Float32 ``(1, 1024, 1024)`` in [0, 1]; bones are light."""
        density = np.fromfile(self.paths[index], dtype=">u2").reshape(SIDE, SIDE)
        if density.max() > WHITE:
            raise ValueError(f"it has the value {density.max()}; 12 bits hold at most {WHITE}")
        light = (WHITE - density.astype(np.float32)) / WHITE
        return light.reshape(1, SIDE // 2, 2, SIDE // 2, 2).mean(axis=(2, 4))

    def digest(self, index: int) -> str:
        """SHA-256 of the file."""
        with self.paths[index].open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
