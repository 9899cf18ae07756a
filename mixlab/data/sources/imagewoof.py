"""ImageWoof: ten dog breeds of ImageNet, ``imagewoof`` (the largest found) or ``imagewoof:160|320|full``.

``root`` is the folder of ``imagewoof2`` (or ``imagewoof2-160``, ``imagewoof2-320``) or that folder itself, with
``train`` and ``val`` inside. The set has no test split: its validation split is the test here, as in the literature,
and a seeded part of training validates.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import urllib.request
from http.client import HTTPException
from pathlib import Path

from mixlab.data.card import DataCard, event
from mixlab.data.config import DataConfig
from mixlab.data.raw import RawData
from mixlab.data.sources import register_dataset
from mixlab.data.sources.folder import folder_data, read_folder
from mixlab.errors import Quoted, expected

BREEDS = {
    "n02086240": "Shih-Tzu", "n02087394": "Rhodesian ridgeback", "n02088364": "beagle",
    "n02089973": "English foxhound", "n02093754": "Border terrier", "n02096294": "Australian terrier",
    "n02099601": "golden retriever", "n02105641": "Old English sheepdog", "n02111889": "Samoyed", "n02115641": "dingo",
}  # fmt: skip
FOLDERS = {"full": "imagewoof2", "320": "imagewoof2-320", "160": "imagewoof2-160"}
URL = "https://s3.amazonaws.com/fast-ai-imageclas/"
OFFICIAL = {"train": 9025, "val": 3929}
SOURCE = "https://github.com/fastai/imagenette (ten classes of ImageNet)"
LICENCE = "ImageNet's terms: non-commercial research and education only"
CITATION = "Howard, Imagewoof: a subset of 10 classes from ImageNet, 2019; Deng et al., ImageNet, CVPR 2009"
NOTES = ("photographs of varying size: image_size is needed", "a photograph of a dog may be mirrored left to right")


def describe(argument: str) -> DataCard:
    """The card without the images."""
    _folders(argument)
    return DataCard(
        name="imagewoof", task="classification", classes=tuple(BREEDS.values()), channels=3, spatial_dims=2,
        flips=(1,), splits="official, its validation split used as test; validation is drawn from training",
        source=SOURCE, licence=LICENCE, citation=CITATION, notes=NOTES,
    )  # fmt: skip


@register_dataset(
    "imagewoof",
    pattern="imagewoof[:160|320|full]",
    names=lambda: ["imagewoof"],
    describe=describe,
    at_hand=lambda config, argument: _there(_places(config, argument)[1]) is not None,
)
def open_imagewoof(config: DataConfig, argument: str) -> RawData:
    """The photographs under the local root.

    Raises:
        UserError: they are not there and may not be, or could not be, fetched.
    """
    root = find_folder(config, argument)
    found = read_folder(root)
    strangers = sorted(set(found.classes) - set(BREEDS))
    if found.splits is None or strangers or set(found.splits) != {"train", "val"}:
        got = Quoted(f"other folders in {root}" + (f": {', '.join(strangers[:5])}" if strangers else ""))
        raise expected("data imagewoof", "train and val with a folder for each of the ten breeds (n02086240 ...)", got)
    raw = folder_data(root, "imagewoof", found)
    raw.classes = tuple(BREEDS[name] for name in raw.classes)
    raw.flips, raw.splits, raw.notes = (1,), "official", NOTES
    raw.source, raw.licence, raw.citation = SOURCE, LICENCE, CITATION
    sizes = {split: found.splits.count(split) for split in ("train", "val")}
    if sizes != OFFICIAL:
        raw.events.append(event("split sizes", f"imagewoof: {sizes} images differ from the official {OFFICIAL}"))
    return raw


def _folders(argument: str) -> dict[str, str]:
    size = argument
    if not size:
        return FOLDERS
    if size not in FOLDERS:
        raise expected("size of imagewoof", f"one of {', '.join(FOLDERS)}", size, "imagewoof:160")
    return {size: FOLDERS[size]}


def find_folder(config: DataConfig, argument: str) -> Path:
    """The folder with ``train`` and ``val``, fetched when the configuration asks for it."""
    root, places = _places(config, argument)
    if (place := _there(places)) is not None:
        return place
    size = argument or "160"
    url = f"{URL}{FOLDERS[size]}.tgz"
    if config.download:
        return _download(url, root, FOLDERS[size])
    got = Quoted("none in " + ", ".join(str(p) for p in places))
    hint = f"--data-root FOLDER, or --download, or unpacking {url}"
    raise expected("data imagewoof", "the folders train and val", got, hint)


def _places(config: DataConfig, argument: str) -> tuple[Path, list[Path]]:
    """The local root, and where the photographs may lie, best first."""
    wanted = _folders(argument)
    root = (Path(config.root) if config.root is not None else Path.home() / ".mixlab").expanduser()
    places = [root / name for name in wanted.values()]
    if not argument or root.name in wanted.values():
        places.insert(0, root)
    return root, places


def _there(places: list[Path]) -> Path | None:
    return next((p for p in places if (p / "train").is_dir() and (p / "val").is_dir()), None)


def _download(url: str, root: Path, name: str) -> Path:
    """Fetch and unpack next to the target; the folder appears under its name only when it is whole."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".fetch-") as folder:
            archive = Path(folder) / "archive.tgz"
            with urllib.request.urlopen(url, timeout=60) as answer, archive.open("wb") as file:
                shutil.copyfileobj(answer, file)
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
            (Path(folder) / name).rename(root / name)
    except (OSError, EOFError, HTTPException, tarfile.TarError) as error:
        got = Quoted(f"{type(error).__name__}: {error}")
        hint = f"unpacking that archive as {root / name}"
        raise expected("data imagewoof", f"to fetch {url}", got, hint) from error
    return root / name
