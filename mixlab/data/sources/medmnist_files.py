"""Finding, fetching and reading MedMNIST's npz files."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mixlab.data.card import Event, event
from mixlab.data.config import DataConfig
from mixlab.data.images import Array
from mixlab.data.raw import SPLITS
from mixlab.errors import Quoted, expected


@dataclass(frozen=True)
class Npz:
    """Images and labels of each split."""

    path: Path
    images: dict[str, Array]
    labels: dict[str, Array]
    others: dict[str, Array] = field(default_factory=dict)
    """Further arrays that were asked for, where the file has them."""


def default_root() -> Path:
    """Where the medmnist package keeps its files."""
    from medmnist.info import DEFAULT_ROOT

    return Path(DEFAULT_ROOT) if DEFAULT_ROOT else Path.home() / ".medmnist"


def npz_places(config: DataConfig, flag: str, size: int) -> tuple[Path, list[Path]]:
    """The local root, and where a set's file may lie, best first."""
    root = (Path(config.root) if config.root is not None else default_root()).expanduser()
    names = [f"{flag}.npz", f"{flag}_28.npz"] if size == 28 else [f"{flag}_{size}.npz"]
    return root, [folder / name for folder in (root, root / "medmnist") for name in names]


def find_npz(config: DataConfig, flag: str, size: int, info: dict[str, Any]) -> Path:
    """The file under the local root, or a fetched one when the configuration asks for it.

    Raises:
        UserError: it is not there and may not be, or could not be, fetched.
    """
    root, places = npz_places(config, flag, size)
    for place in places:
        if place.is_file():
            return place
    if config.download:
        return _download(root, flag, size, info, places[0].name)
    looked = Quoted("none of " + ", ".join(str(p) for p in places))
    url = info["url" if size == 28 else f"url_{size}"]
    hint = f"--data-root FOLDER with {places[0].name} in it, or --download, or fetching {url}"
    raise expected(f"data medmnist:{flag}", f"the file {places[0].name}", looked, hint)


def _download(root: Path, flag: str, size: int, info: dict[str, Any], filename: str) -> Path:
    """Fetch through the medmnist package into a folder of its own first: an interrupted file never looks whole."""
    import medmnist

    target = root / filename
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".fetch-") as folder:
            with contextlib.redirect_stdout(io.StringIO()):
                getattr(medmnist, info["python_class"])(split="train", download=True, root=folder, size=size)
            os.replace(Path(folder) / filename, target)
    except (RuntimeError, OSError) as error:
        reason = "the download failed (no network, or the server's file differs from its checksum)"
        got = Quoted(reason if isinstance(error, RuntimeError) else f"{type(error).__name__}: {error}")
        url = info["url" if size == 28 else f"url_{size}"]
        raise expected(f"data medmnist:{flag}", f"to fetch {url}", got, f"putting that file at {target}") from error
    return target


def check_md5(path: Path, official: str, name: str) -> list[Event]:
    """Compare with the official checksum; another file is accepted, and that is recorded."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    if digest.hexdigest() == official:
        return []
    message = f"{name}: MD5 {digest.hexdigest()} of {path.name} differs from the official {official}"
    return [event("checksum", message)]


def read_npz(
    path: Path, *, optional: Sequence[str] = (), again: str = "fetching it again", hint: str = "the official file"
) -> Npz:
    """The six arrays of a file such as MedMNIST's. What is pickled is never opened.

    Args:
        path: the file.
        optional: names of further arrays to read where there are any.
        again, hint: what to try with a damaged file, and with one that lacks an array.

    Raises:
        UserError: the file is truncated or corrupt, an array of it is pickled, or one is missing.
    """
    keys = [f"{split}_{kind}" for split in SPLITS for kind in ("images", "labels")]
    where = f"data file {path}"
    try:
        # opened here, because numpy leaves a damaged file open
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            missing = [key for key in keys if key not in file.files]
            arrays = {key: file[key] for key in [*keys, *optional] if key in file.files}
    except Exception as error:  # zipfile, zlib and numpy each raise their own kinds for a damaged file
        got = Quoted(f"{type(error).__name__}: {error}")
        raise expected(where, "a readable npz file", got, f"{again}: it is truncated or corrupt") from error
    if missing:
        got = Quoted(f"none of {', '.join(missing)}")
        raise expected(where, f"the arrays {', '.join(keys)}", got, hint)
    images, labels = ({s: arrays.pop(f"{s}_{kind}") for s in SPLITS} for kind in ("images", "labels"))
    return Npz(path, images, labels, arrays)


def check_labels(where: str, images: Array, labels: Array, columns: int, hint: str) -> None:
    """Labels are integers, one or ``columns`` for each of at least one image.

    Raises:
        UserError: they are not.
    """
    if len(labels) != len(images) or labels.size != len(images) * columns or labels.dtype.kind not in "iub":
        got = Quoted(f"{labels.dtype} {labels.shape}")
        raise expected(f"{where}_labels", f"integers ({len(images)}, {columns})", got, hint)
    if not len(images):
        raise expected(f"{where}_images", "at least one image", 0, hint)
