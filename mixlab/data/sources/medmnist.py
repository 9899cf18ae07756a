"""MedMNIST v2 and MedMNIST+, every 2D and 3D set: ``medmnist:NAME[@SIZE]``.

Files are ``NAME.npz`` (28 pixels) or ``NAME_SIZE.npz`` in ``root`` or ``root/medmnist``; without a root in the medmnist
package's own folder. Nothing is fetched unless ``download`` is set.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixlab.data.card import DataCard, Task, event
from mixlab.data.config import DataConfig
from mixlab.data.images import ArrayImages
from mixlab.data.raw import SPLITS, RawData
from mixlab.data.sources import register_dataset
from mixlab.data.sources.medmnist_files import Npz, check_labels, check_md5, find_npz, npz_places, read_npz
from mixlab.errors import Quoted, expected, unknown

SIZES = {2: (28, 64, 128, 224), 3: (28, 64)}
CITATION = (
    "Yang et al., MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image classification, "
    "Scientific Data 10:41, 2023; and the paper of the set's own source"
)
# Mirroring is allowed where the imaged thing has no side and no up: tissue, cells, lesions, fundus of either eye left
# to right. Everything else keeps the conservative default, none: a mirrored chest or abdomen shows other organs.
FLIPS = {
    "pathmnist": (0, 1), "dermamnist": (0, 1), "bloodmnist": (0, 1), "tissuemnist": (0, 1), "retinamnist": (1,),
    "breastmnist": (1,), "nodulemnist3d": (0, 1, 2), "synapsemnist3d": (0, 1, 2), "vesselmnist3d": (0, 1, 2),
}  # fmt: skip
NOTES = {
    "retinamnist": ("the classes are ordered grades (the official task is ordinal regression); here plain classes",),
    "chestmnist": ("14 findings of which any number may be present; an image with none of them is normal",),
    "dermamnist": ("licence is non-commercial",),
}
LEAKS = {
    "pathmnist": ("training and validation patches come from the same slides; the test patches from another hospital",),
    "dermamnist": ("HAM10000 holds several images of a lesion; the official split does not keep them together",),
    "octmnist": ("training and validation images were divided at random, with several images of a patient",),
    "tissuemnist": ("cells of the same few tissue samples are in all splits",),
    "pneumoniamnist": (
        "training and validation images were divided at random, with several images of some patients",
        "8 of the 524 validation images also occur in the training split",
    ),
}


@dataclass(frozen=True)
class MedMNISTName:
    """A set and its size, as the part after ``medmnist:`` says."""

    flag: str
    size: int
    info: dict[str, Any]

    @property
    def spatial_dims(self) -> int:
        return 3 if self.flag.endswith("3d") else 2

    @property
    def suffix(self) -> str:
        """What file names and checksum keys carry: nothing at 28 pixels."""
        return "" if self.size == 28 else f"_{self.size}"

    @property
    def full(self) -> str:
        return f"medmnist:{self.flag}" + ("" if self.size == 28 else f"@{self.size}")

    @property
    def task(self) -> Task:
        return "multilabel" if self.info["task"].startswith("multi-label") else "classification"

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.info["label"][str(i)] for i in range(len(self.info["label"])))


def package_info() -> dict[str, dict[str, Any]]:
    """The medmnist package's table of sets."""
    from medmnist.info import INFO

    return dict(INFO)


def parse(argument: str) -> MedMNISTName:
    """Read ``NAME[@SIZE]``.

    Raises:
        UserError: no such set, or it does not exist at that size.
    """
    table = package_info()
    flag, at, size = argument.strip().lower().partition("@")
    if flag not in table:
        raise unknown("MedMNIST set", flag, table)
    name = MedMNISTName(flag, int(size) if size.isdigit() else 28 if not at else 0, table[flag])
    sizes = SIZES[name.spatial_dims]
    if name.size not in sizes:
        raise expected(f"size of medmnist:{flag}", f"one of {sizes}", size, f"medmnist:{flag}@{sizes[-1]}")
    return name


def list_names() -> Iterable[str]:
    """All sets at their smallest size."""
    return [f"medmnist:{flag}" for flag in package_info()]


def describe(argument: str) -> DataCard:
    """The card without the images."""
    name = parse(argument)
    return DataCard(
        name=name.full,
        task=name.task,
        classes=name.classes,
        channels=name.info["n_channels"],
        spatial_dims=name.spatial_dims,
        image_size=(name.size,) * name.spatial_dims,
        sizes=dict(name.info["n_samples"]),
        flips=FLIPS.get(name.flag, ()),
        source=name.info[f"url{name.suffix}"].partition("?")[0],
        licence=name.info["license"],
        citation=CITATION,
        splits="official",
        notes=NOTES.get(name.flag, ()),
        leaks=LEAKS.get(name.flag, ()),
    )


def files_at_hand(config: DataConfig, argument: str) -> bool:
    """Whether the set's file is there."""
    name = parse(argument)
    return any(place.is_file() for place in npz_places(config, name.flag, name.size)[1])


@register_dataset(
    "medmnist", pattern="medmnist:NAME[@SIZE]", names=list_names, describe=describe, at_hand=files_at_hand
)
def open_medmnist(config: DataConfig, argument: str) -> RawData:
    """The arrays of one npz file with the official splits.

    Raises:
        UserError: the file is missing, cannot be read, or does not hold what the set should.
    """
    name, card = parse(argument), describe(argument)
    path = find_npz(config, name.flag, name.size, name.info)
    events = check_md5(path, name.info[f"MD5{name.suffix}"], name.full)
    data = read_npz(path)
    _check_shapes(data, name)
    sizes = {split: len(data.images[split]) for split in SPLITS}
    if sizes != card.sizes:
        message = f"{name.full}: splits of {sizes} cases differ from the official {card.sizes}"
        events.append(event("split sizes", message))
    labels = [data.labels[split].reshape(sizes[split], -1) for split in SPLITS]
    targets = np.concatenate(labels).astype(np.int64)
    raw = RawData.from_card(
        card,
        images=ArrayImages([data.images[split] for split in SPLITS], channels_last=card.channels == 3),
        targets=targets if name.task == "multilabel" else targets[:, 0],
        ids=[f"{split}-{i:06d}" for split in SPLITS for i in range(sizes[split])],
        given=[split for split in SPLITS for _ in range(sizes[split])],
    )
    raw.events = events
    # exact copies are counted when the set is opened; the card would say it twice
    raw.leaks = tuple(leak for leak in card.leaks if "also occur" not in leak)
    if sizes != card.sizes:
        raw.splits = "given (sizes differ from the official ones)"
    return raw


def _check_shapes(data: Npz, name: MedMNISTName) -> None:
    size = (name.size,) * name.spatial_dims + ((3,) if name.info["n_channels"] == 3 else ())
    columns = len(name.classes) if name.task == "multilabel" else 1
    for split in SPLITS:
        images, labels = data.images[split], data.labels[split]
        where = f"{data.path.name}, {split}"
        if images.shape[1:] != size or images.dtype != np.uint8:
            got = Quoted(f"{images.dtype} {images.shape}")
            raise expected(f"{where}_images", f"uint8 (N, {', '.join(map(str, size))})", got, "the official file")
        check_labels(where, images, labels, columns, "the official file")
