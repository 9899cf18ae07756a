"""``npz:PATH``: one file of arrays of your own, as :func:`numpy.savez` writes it, laid out as MedMNIST's files.

For ``train``, ``val`` and ``test`` each:

* ``train_images``: uint8 or uint16 (their type's range is [0, 1]) or float32 in [0, 1]; grey images ``(N, H, W)``,
  images with channels ``(N, H, W, C)``, volumes ``(N, D, H, W)`` or ``(N, D, H, W, C)``. A last axis of four axes is
  the channels if it is at most 4 long, else the width of a volume;
* ``train_labels``: integers ``(N,)`` or ``(N, 1)`` are classes from 0; 0 and 1 ``(N, K)`` say which of K findings an
  image has (multi-label);
* ``train_ids`` (for all splits or none): names of the images.

``class_names``, if there are any, is a list of text, one a class or finding. A relative path starts from ``root``,
where there is one.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from mixlab.data.config import DataConfig
from mixlab.data.images import RAW_DTYPES, Array, ArrayImages
from mixlab.data.raw import SPLITS, RawData
from mixlab.data.sources import register_dataset
from mixlab.data.sources.folder import resolve
from mixlab.data.sources.medmnist_files import Npz, check_labels, read_npz
from mixlab.errors import Quoted, expected

MOST_CHANNELS = 4
NAMES, IDS = "class_names", {split: f"{split}_ids" for split in SPLITS}
HINT = "arrays of the layout that docs/data.md shows"
NOTES = ("images of unknown origin: no mirroring is assumed to be harmless",)


def file_at_hand(config: DataConfig, argument: str) -> bool:
    """Whether there is anything at the path."""
    return resolve(config, argument, "npz:PATH").exists()


@register_dataset("npz", pattern="npz:PATH", at_hand=file_at_hand)
def open_npz(config: DataConfig, argument: str) -> RawData:
    """The arrays of one file, with its splits.

    Raises:
        UserError: there is no such file, it cannot be read without unpickling, an array is missing or is not what it
            should be.
    """
    path = resolve(config, argument, "npz:PATH")
    if not path.is_file():
        raise expected(f"data npz:{argument}", "an existing .npz file", str(path), "npz:path/to/images.npz")
    data = read_npz(path, optional=[NAMES, *IDS.values()], again="saving it again with numpy.savez", hint=HINT)
    channels_last = _check_images(data)
    multilabel, targets = _targets(data)
    return RawData(
        name=f"npz:{path.name}",
        task="multilabel" if multilabel else "classification",
        classes=_classes(data, targets),
        images=ArrayImages([data.images[split] for split in SPLITS], channels_last=channels_last),
        targets=targets,
        ids=_ids(data),
        given=[split for split in SPLITS for _ in data.images[split]],
        source="a file of the user",
        licence="not known",
        notes=NOTES,
    )


def _check_images(data: Npz) -> bool:
    """Whether the images' last axis is their channels."""
    first = data.images["train"]
    for split in SPLITS:
        images, where = data.images[split], f"{data.path.name}, {split}_images"
        if images.ndim not in (3, 4, 5) or images.shape[1:] != first.shape[1:] or 0 in images.shape[1:]:
            want = "(N, H, W), (N, H, W, C), (N, D, H, W) or (N, D, H, W, C), of one size in all splits"
            raise expected(where, want, Quoted(str(images.shape)), HINT)
        if images.dtype.name not in RAW_DTYPES:
            raise expected(where, f"one of {', '.join(RAW_DTYPES)}", images.dtype.name, "float32 in [0, 1]")
        if images.dtype.kind == "f" and images.size:
            low, high = images.min(), images.max()
            if not (low >= 0 and high <= 1):  # not a number fails too
                got = Quoted(f"{low:g} to {high:g}")
                raise expected(where, "numbers from 0 to 1", got, "dividing by the largest value")
    return first.ndim == 5 or (first.ndim == 4 and first.shape[-1] <= MOST_CHANNELS)


def _targets(data: Npz) -> tuple[bool, Array]:
    """Whether the set is multi-label, and the labels of all splits."""
    shape = data.labels["train"].shape
    columns = shape[1] if len(shape) == 2 else 1
    for split in SPLITS:
        labels, where = data.labels[split], f"{data.path.name}, {split}"
        if labels.ndim not in (1, 2):
            raise expected(f"{where}_labels", "(N,), (N, 1) or (N, K)", Quoted(str(labels.shape)), HINT)
        check_labels(where, data.images[split], labels, columns, HINT)
    found = np.concatenate([data.labels[split].reshape(-1, columns) for split in SPLITS]).astype(np.int64)
    return (True, found) if columns > 1 else (False, found[:, 0])


def _classes(data: Npz, targets: Array) -> tuple[str, ...]:
    """The file's names, or numbers. A label without a name is found with those of all sources."""
    findings = targets.shape[1] if targets.ndim == 2 else None
    if NAMES not in data.others:
        return tuple(str(i) for i in range(findings or max(int(targets.max()) + 1, 2)))
    names = data.others[NAMES]
    where = f"{data.path.name}, {NAMES}"
    if names.ndim != 1 or names.dtype.kind != "U" or len(set(names.tolist())) < len(names):
        got = Quoted(f"{names.dtype} {names.shape}: {names.tolist()}")
        raise expected(where, "a list of different texts", got, "numpy.array of str")
    if findings is not None and len(names) != findings:
        raise expected(where, f"{findings} names, one a column of the labels", names.tolist())
    return tuple(names.tolist())


def _ids(data: Npz) -> list[str]:
    """The file's names of the images, or their numbers in their split."""
    given = [data.others.get(key) for key in IDS.values()]
    if all(ids is None for ids in given):
        return [f"{split}-{i:06d}" for split in SPLITS for i in range(len(data.images[split]))]
    found: list[str] = []
    for split, ids in zip(SPLITS, given, strict=True):
        count = len(data.images[split])
        if ids is None or ids.shape != (count,):
            got = Quoted("none" if ids is None else str(ids.shape))
            raise expected(f"{data.path.name}, {IDS[split]}", f"{count} names, as of the other splits", got)
        found += [str(name) for name in ids]
    twice = [name for name, count in Counter(found).items() if count > 1]
    if twice:
        got = Quoted(f"twice: {', '.join(twice[:5])}")
        raise expected(f"{data.path.name}, {', '.join(IDS.values())}", "each name once", got)
    return found
