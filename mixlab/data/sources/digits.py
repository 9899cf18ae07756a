"""UCI handwritten digits, as scikit-learn ships them: 1797 images of 8 x 8 pixels, no network needed."""

from __future__ import annotations

import numpy as np

from mixlab.data.card import DataCard, event
from mixlab.data.config import DataConfig
from mixlab.data.images import ArrayImages
from mixlab.data.membership import draw_order
from mixlab.data.raw import RawData
from mixlab.data.sources import register_dataset

CLASSES = tuple("0123456789")
SHARES = {"test": 0.3, "val": 0.2}
CITATION = "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998"
SOURCE = "scikit-learn's load_digits (the test part of UCI optdigits)"
LICENCE = "CC BY 4.0"
NOTES = ("8 x 8 pixels with 17 grey levels, presented as they are; image_size enlarges them",)
LEAKS = ("the 13 writers are not recorded, so the same hand writes in all splits",)


def describe(_argument: str = "") -> DataCard:
    """The card without the images."""
    return DataCard(
        name="digits", task="classification", classes=CLASSES, channels=1, spatial_dims=2, image_size=(8, 8),
        source=SOURCE, licence=LICENCE, citation=CITATION, splits="seeded, stratified 50/20/30",
        notes=NOTES, leaks=LEAKS,
    )  # fmt: skip


@register_dataset("digits", describe=describe)
def open_digits(config: DataConfig, _argument: str) -> RawData:
    """All digits with a seeded, stratified split: half training, 20 % validation, 30 % test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    targets = np.asarray(bunch.target, dtype=np.int64)
    ids = [f"digit-{i:04d}" for i in range(len(targets))]
    how = f"seeded, stratified 50/20/30 (seed {config.split_seed})"
    raw = RawData.from_card(
        describe(),
        images=ArrayImages([(np.asarray(bunch.images) / 16).astype(np.float32)]),
        targets=targets,
        ids=ids,
        given=_split(targets, ids, config.split_seed),
    )
    raw.splits = how
    raw.events = [event("split", f"digits has no official split here; {how}")]
    return raw


def _split(targets: np.ndarray, ids: list[str], seed: int) -> list[str]:
    given = np.full(len(ids), "train", dtype=object)
    for label in np.unique(targets):
        cases = np.flatnonzero(targets == label)
        order = cases[draw_order([ids[i] for i in cases], seed, "split")]
        start = 0
        for name, share in SHARES.items():
            stop = start + round(share * len(cases))
            given[order[start:stop]] = name
            start = stop
    return [str(name) for name in given]
