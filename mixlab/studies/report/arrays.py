"""The arrays of a run folder: predictions of classes or of masks, and the images that a run kept.

Which of the two a file of predictions holds is seen from its arrays. Whatever does not fit raises ``ValueError``,
``KeyError`` or an error of reading, which the caller turns into a problem of the run.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlab.studies.case_metrics import AnyPredictions, Predictions
from mixlab.training.mask_scores import MaskScores

#: What reading a damaged or foreign file may raise.
UNREADABLE = (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError)

#: The value of a mask's pixels that count for nothing (:data:`mixlab.data.masks.IGNORE`, without importing torch).
IGNORED = 255


@dataclass(frozen=True, eq=False)
class MaskExample:
    """A test case that a run kept.

    Args:
        case: Its id.
        image: ``(H, W)`` or ``(H, W, 3)`` uint8.
        truth: Class numbers ``(H, W)``, 255 where pixels count for nothing; of structures that overlap ``(K, H, W)``
            of 0 and 1.
        said: What the run predicts, as ``truth``.
        kept: Why the run kept it: ``spread`` (by its place in the split), ``worst`` or ``best`` (of that run).
    """

    case: str
    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    said: NDArray[np.uint8]
    kept: str


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an ``.npz`` file; objects are refused."""
    with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def same_length(arrays: list[NDArray[Any]]) -> None:
    """Raise ``ValueError`` where the arrays do not have one item a case."""
    if len({len(array) for array in arrays}) != 1:
        raise ValueError("arrays of different length")


def read_predictions(path: Path) -> AnyPredictions:
    """The predictions of one split."""
    arrays = read_arrays(path)
    if "hit" in arrays:
        return _mask_scores(arrays)
    ids, targets, probabilities = (arrays[name] for name in ("ids", "targets", "probabilities"))
    same_length([ids, targets, probabilities])
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    return Predictions(ids.astype(str), targets, probabilities.astype(np.float64))


def _mask_scores(arrays: dict[str, NDArray[Any]]) -> MaskScores:
    per_structure = {name: arrays[name] for name in ("true", "said", "hit", "hd95", "said_unmasked") if name in arrays}
    ids, shape = arrays["ids"].astype(str), arrays["hit"].shape
    if len(shape) != 2 or any(array.shape != shape for array in per_structure.values()):
        raise ValueError("arrays that are not all of one shape (cases, structures)")
    groups = arrays["groups"].astype(str) if "groups" in arrays else None
    same_length([ids, arrays["hit"], *([] if groups is None else [groups])])
    distances = per_structure.pop("hd95", None)
    counts = {name: array.astype(np.int64) for name, array in per_structure.items()}
    return MaskScores(ids, **counts, hd95=None if distances is None else distances.astype(np.float64), groups=groups)


def read_images(path: Path) -> tuple[NDArray[np.uint8], list[str]]:
    """The kept images of a classification run ``(N, H, W[, 3])`` and their case ids."""
    arrays = read_arrays(path)
    images, ids = arrays["images"], arrays["ids"]
    same_length([images, ids])
    return images.astype(np.uint8), [str(case) for case in ids]


def read_mask_examples(path: Path) -> list[MaskExample]:
    """The kept cases of a segmentation run, without their padding."""
    arrays = read_arrays(path)
    images, ids, truth, said, sizes, kept = (
        arrays[name] for name in ("images", "ids", "truth", "said", "sizes", "kept")
    )
    same_length([images, ids, truth, said, sizes, kept])
    if truth.shape != said.shape or truth.ndim not in (3, 4) or truth.shape[-2:] != images.shape[1:3]:
        raise ValueError("masks that do not have the shape of the images")
    found = []
    for n, (height, width) in enumerate(sizes.tolist()):
        image = np.ascontiguousarray(images[n, :height, :width], dtype=np.uint8)
        true, predicted = (np.ascontiguousarray(m[n, ..., :height, :width], dtype=np.uint8) for m in (truth, said))
        found.append(MaskExample(str(ids[n]), image, true, predicted, str(kept[n])))
    return found
