"""MNI152, as nilearn ships it: one averaged T1 brain at 1 mm with grey- and white-matter maps, no network needed.

``mni152`` is its coronal slices (2D, 160 x 160), ``mni152-3d`` cubes of 32 voxels. Classes: background (with
cerebrospinal fluid), grey matter, white matter; a voxel belongs to the likelier tissue when its map is at least one
half.

The splits are blocks along the posterior-anterior axis with 10 mm between them. They cannot be blocks from left to
right: the template is exactly symmetric, and one half is the mirror image of the other.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mixlab.data.card import DataCard
from mixlab.data.config import DataConfig
from mixlab.data.images import Array, ArrayImages
from mixlab.data.raw import RawData
from mixlab.data.sources import register_dataset

CLASSES = ("background", "grey matter", "white matter")
# Blocks of the posterior-anterior axis in voxels of 1 mm: the brain is at 28..207, and 10 mm lie between blocks.
BLOCKS = {"val": (28, 60), "train": (70, 162), "test": (172, 208)}
X, Z = slice(18, 178), slice(0, 160)
"""What is kept from left to right and from bottom to top: 160 voxels that hold the whole brain."""
CUBE = 32
SLAB = 10
LEAST_TISSUE = 0.1
"""Cubes with less brain tissue than this are left out."""
NOTES = (
    "ONE averaged brain (of 152 people), no population: it shows that a model can segment, not that it generalises",
    "the labels are tissue probability maps of the same average, cut at one half",
)
LEAKS = ("all splits are parts of the same brain; they are at least 10 mm apart",)
SOURCE = "nilearn's bundled MNI152 template (ICBM 152 nonlinear symmetric 2009a, 1 mm)"
LICENCE = "free for any use with the copyright notice of the McConnell Brain Imaging Centre, McGill University"
CITATION = "Fonov et al., Unbiased average age-appropriate atlases for pediatric studies, NeuroImage 54, 2011"


def describe_2d(_argument: str = "") -> DataCard:
    """The card without the arrays."""
    return _card("mni152", (160, 160), (1,))


def describe_3d(_argument: str = "") -> DataCard:
    """The card without the arrays."""
    return _card("mni152-3d", (CUBE,) * 3, (2,))


def _card(name: str, size: tuple[int, ...], flips: tuple[int, ...]) -> DataCard:
    return DataCard(
        name=name, task="segmentation", classes=CLASSES, channels=1, spatial_dims=len(size), image_size=size,
        flips=flips, background=0, spacing=(1.0,) * len(size),
        splits=_how(), source=SOURCE, licence=LICENCE,
        citation=CITATION, notes=NOTES, leaks=LEAKS,
    )  # fmt: skip


def _how() -> str:
    blocks = ", ".join(f"{name} y={a}..{b - 1}" for name, (a, b) in BLOCKS.items())
    return f"spatial, along the posterior-anterior axis with 10 mm between ({blocks} mm from the volume's back)"


def load_volumes() -> tuple[Array, Array]:
    """T1 (float32 in [0, 1]) and labels (uint8), both with axes (z, y, x) at 1 mm."""
    from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template

    loaders = (load_mni152_template, load_mni152_gm_template, load_mni152_wm_template)
    t1, grey, white = (np.asarray(load(resolution=1).dataobj, dtype=np.float32) for load in loaders)
    labels = np.where(np.maximum(grey, white) >= 0.5, np.where(white >= grey, 2, 1), 0).astype(np.uint8)
    return t1[X, :, Z].transpose(2, 1, 0), labels[X, :, Z].transpose(2, 1, 0)


@register_dataset("mni152", describe=describe_2d)
def open_slices(_config: DataConfig, _argument: str) -> RawData:
    """Coronal slices, upright (top of the head first), in the order of their place."""
    t1, labels = load_volumes()
    places = [(split, y) for split, (start, stop) in BLOCKS.items() for y in range(start, stop)]
    images = np.stack([t1[::-1, y, :] for _, y in places])
    masks = np.stack([labels[::-1, y, :] for _, y in places])
    raw = _raw(describe_2d(), images, masks, [split for split, _ in places], [f"y{y:03d}" for _, y in places])
    # Neighbours are nearly the same image: what is drawn anew in statistics are slabs of 10 mm.
    raw.groups = [f"{split} {(y - BLOCKS[split][0]) // SLAB}" for split, y in places]
    return raw


@register_dataset("mni152-3d", describe=describe_3d)
def open_cubes(_config: DataConfig, _argument: str) -> RawData:
    """Cubes of 32 voxels with at least a tenth tissue; those of the training split overlap by half."""
    t1, labels = load_volumes()
    images, masks, splits, ids = [], [], [], []
    for split, (z, y, x) in corners():
        cube = (slice(z, z + CUBE), slice(y, y + CUBE), slice(x, x + CUBE))
        if (labels[cube] > 0).mean() >= LEAST_TISSUE:
            images.append(t1[cube])
            masks.append(labels[cube])
            splits.append(split)
            ids.append(f"z{z:03d}y{y:03d}x{x:03d}")
    return _raw(describe_3d(), np.stack(images), np.stack(masks), splits, ids)


def corners() -> Iterator[tuple[str, tuple[int, int, int]]]:
    """Split and lowest corner (z, y, x) of each cube; a cube never leaves its split's block."""
    for split, (start, stop) in BLOCKS.items():
        step = CUBE // 2 if split == "train" else CUBE
        for z in range(0, 160 - CUBE + 1, step):
            for y in range(start, stop - CUBE + 1, step):
                for x in range(0, 160 - CUBE + 1, step):
                    yield split, (z, y, x)


def _raw(card: DataCard, images: Array, masks: Array, splits: list[str], ids: list[str]) -> RawData:
    raw = RawData.from_card(card, images=ArrayImages([images]), targets=masks, ids=ids, given=splits)
    raw.fixed_splits = True
    raw.spacing = [card.spacing] * len(ids)
    return raw
