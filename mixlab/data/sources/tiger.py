"""``tiger``: tissue in patches of breast cancer slides, where a part of each patch is not labelled.

The patches are the regions of interest of TIGER's WSIROIS. Nothing is fetched: ``root`` is the folder that
https://tiger.grand-challenge.org/Data says how to download, of which only this is read::

    wsirois/roi-level-annotations/tissue-bcss/images/SLIDE_[x1, y1, x2, y2].png     and masks/ of the same names
    wsirois/roi-level-annotations/tissue-cells/images/..., masks/...

(``root`` may also be ``wsirois`` or ``roi-level-annotations``.) Masks hold 1 to 7, see :data:`TISSUES`, and 0 where
nothing was labelled: those pixels count for nothing. The layout is that of programs that read the set; the files were
not at hand when this was written. There is no official split: one is drawn that divides no patient (of TCGA's slides
the first three parts of the name, of others the slide).
"""

from __future__ import annotations

from pathlib import Path

from mixlab.data.card import DataCard
from mixlab.data.config import DataConfig
from mixlab.data.files import FileImages
from mixlab.data.mask_classes import MaskClasses
from mixlab.data.mask_files import FileMasks
from mixlab.data.masks import IGNORE
from mixlab.data.raw import RawData
from mixlab.data.sources import register_dataset
from mixlab.errors import Quoted, expected

TISSUES = (
    "invasive tumour", "tumour-associated stroma", "in-situ tumour", "healthy glands", "necrosis not in-situ",
    "inflamed stroma", "rest",
)  # fmt: skip
VALUES = MaskClasses(TISSUES, tuple(range(1, 8)), ignored=0)
PARTS = ("tissue-bcss", "tissue-cells")
LEVELS = ("wsirois/roi-level-annotations", "roi-level-annotations", ".")
SPACING = 0.0005
"""Millimetres: about 0.5 micrometres a pixel."""
URL = "https://tiger.grand-challenge.org/Data"
NOTES = (
    "pixels without a label count for nothing (ignore_label)",
    "patches of varying size, up to some thousand pixels: train on crops",
    "the published study took patches of at least 1000 pixels at a side, 90 % of them for training, not by patient",
)


def describe(_argument: str = "") -> DataCard:
    """The card without the images."""
    return DataCard(
        name="tiger", task="segmentation", classes=TISSUES, channels=3, spatial_dims=2, ignore_label=IGNORE,
        flips=(0, 1), spacing=(SPACING,) * 2, splits="seeded, no patient in two splits",
        source=f"TIGER WSIROIS ({URL})", licence="see the challenge's page: the parts have different licences",
        citation="TIGER challenge, https://tiger.grand-challenge.org; Amgad et al., Bioinformatics 35, 2019 (BCSS)",
        notes=NOTES,
    )  # fmt: skip


def _root(config: DataConfig) -> Path:
    return (Path(config.root) if config.root is not None else Path.home() / ".mixlab" / "tiger").expanduser()


def _folders(config: DataConfig) -> list[Path]:
    places = [_root(config) / level for level in LEVELS]
    level = next((p for p in places if any((p / part / "images").is_dir() for part in PARTS)), None)
    return [] if level is None else [level / part for part in PARTS if (level / part / "images").is_dir()]


def at_hand(config: DataConfig, _argument: str) -> bool:
    """Whether there are folders of patches."""
    return bool(_folders(config))


@register_dataset("tiger", describe=describe, at_hand=at_hand)
def open_tiger(config: DataConfig, _argument: str) -> RawData:
    """The patches under the local root; nothing is ever fetched.

    Raises:
        UserError: patches are not there, one has no mask or a mask no patch, files are broken.
    """
    folders = _folders(config)
    images = {f"{f.name}/{p.stem}": p for f in folders for p in sorted((f / "images").glob("*.png"))}
    if not images:
        want = f"PNG files in {LEVELS[0]}/{PARTS[0]}/images, and masks beside"
        raise expected(
            "data tiger", want, Quoted(f"none in {_root(config)}"), f"--data-root FOLDER with what {URL} gives"
        )
    masks = {f"{f.name}/{p.stem}": p for f in folders for p in sorted((f / "masks").glob("*.png"))}
    alone = [f"image {n} without mask" for n in images if n not in masks]
    alone += [f"mask {n} without image" for n in masks if n not in images]
    if alone:
        got = Quoted("\n  ".join([f"{len(alone)} alone:", *alone[:20]]))
        raise expected("data tiger", "a mask for each image and an image for each mask", got)
    ids = list(images)
    raw = RawData.from_card(
        describe(),
        images=FileImages(list(images.values()), ids),
        targets=FileMasks([masks[n] for n in ids], [f"mask of {n}" for n in ids], VALUES),
        ids=ids,
        given=None,
    )
    raw.groups = [patient(Path(n).name) for n in ids]
    raw.spacing = [(SPACING, SPACING)] * len(ids)
    return raw


def patient(name: str) -> str:
    """``TCGA-A1-A0SK`` of ``TCGA-A1-A0SK-01Z-00-DX1.UUID_[1, 2, 3, 4]``; ``100B`` of ``100B_[1, 2, 3, 4]``."""
    slide = name.partition("_[")[0]
    return "-".join(slide.split("-")[:3]) if slide.startswith("TCGA-") else slide
