"""Where checkpoints come from: a file, a URL, timm's hub, or the published weights by the model's own name."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import warnings
from functools import lru_cache
from importlib import import_module
from os import PathLike, fspath
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

import torch
from torch import Tensor

from mixlab.architectures import ARCHITECTURES, official_names, published
from mixlab.errors import Quoted, expected
from mixlab.metaformer import MetaFormer
from mixlab.weights.checkpoint import Checkpoint, open_checkpoint
from mixlab.weights.official import to_official

OFFICIAL = "official"
TIMM = "timm:"
#: Families whose published weights timm hosts, and what it calls them.
TIMM_FAMILIES = ("poolformer", "poolformerv2", "convformer", "caformer")
TIMM_TAG = "sail_in1k"


def open_source(source: str | PathLike[str], architecture: str | None, *, entry: str | None = None) -> Checkpoint:
    """Read a checkpoint from wherever it is.

    Args:
        source: a file; an ``https://`` (or ``http://``) URL, optionally with ``#sha256=...``, which is downloaded once
            into torch's cache folder; ``timm:NAME`` for weights of timm's hub; ``official`` for the weights that were
            published for ``architecture``.
        architecture: name of the model that the weights are for.
        entry: which entry of a file holds the weights, see :func:`open_checkpoint`.

    Raises:
        UserError: the source cannot be reached or read, its content has another hash, or no source is known.
    """
    text = fspath(source)
    if text == OFFICIAL:
        return _from_timm(timm_name(architecture), architecture)
    if text.startswith(TIMM):
        return _from_timm(text.removeprefix(TIMM), architecture)
    return open_checkpoint(local_file(text), entry=entry)


def check_source(source: str | PathLike[str], architecture: str | None) -> None:
    """Refuse what can be refused without reading or downloading anything: a file that is not there, a name that no
    source is known for."""
    text = fspath(source)
    if text == OFFICIAL:
        timm_name(architecture)
    elif not is_url(text) and not text.startswith(TIMM):
        local_file(text)


def identity(source: str | PathLike[str]) -> str:
    """What a source is, wherever it lies: the SHA-256 of a file's or download's content, that of a folder's files with
    their names, or the name in a hub."""
    text = fspath(source)
    if text == OFFICIAL or text.startswith(TIMM):
        return text
    if Path(text).is_dir():
        files = sorted(file for file in Path(text).iterdir() if file.is_file())
        return hashlib.sha256("".join(f"{file.name} {_content(file)}\n" for file in files).encode()).hexdigest()
    return _content(local_file(text))


def _content(file: Path) -> str:
    state = file.stat()
    return _sha256(file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=64)
def _sha256(file: Path, changed: int, size: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def local_file(source: str) -> Path:
    """The file itself, or where a URL was downloaded to."""
    if is_url(source):
        return _downloaded(source)
    file = Path(source)
    if not file.is_file():
        hint = "the path of a file that you downloaded, an https:// URL, 'timm:NAME' or 'official'"
        raise expected("weights", "a checkpoint file", source, hint)
    return file


def is_url(source: str) -> bool:
    """Whether a source is downloaded."""
    return source.startswith(("https://", "http://"))


def cached_file(url: str) -> tuple[str, str, Path]:
    """A URL's address, the beginning of its file's SHA-256 (empty if not said), and its file in the cache folder, which
    may not be there."""
    address, fragment = urldefrag(url)
    name = Path(unquote(urlsplit(address).path)).name
    want = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else ""
    if not want and (named := re.search(r"-([a-f0-9]{8,64})\.", name)):  # as torch's hub names its files
        want = named[1]
    if not name or not re.fullmatch(r"[a-f0-9]*", want):
        raise expected(f"weights {url}", "the URL of a file, and after #sha256= hexadecimal digits", url)
    # Files of one name from two places are kept apart.
    folder = Path(torch.hub.get_dir()) / "checkpoints" / "mixlab" / hashlib.sha256(address.encode()).hexdigest()[:12]
    return address, want, folder / name


def _downloaded(url: str) -> Path:
    """A URL's file in the cache folder, downloaded with a progress bar if it is not there."""
    address, want, file = cached_file(url)
    try:
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(address, str(file), hash_prefix=want or None, progress=True)
    except (OSError, RuntimeError, ValueError) as error:  # no connection, no such page, another hash, no such host
        if file.is_file():
            file.unlink()
        said = " ".join(str(error).split()) or type(error).__name__
        hint = "to download it where there is a connection, and give the file's path"
        raise expected(f"weights {address}", "a file that can be downloaded", Quoted(said), hint) from None
    if want and not identity(file).startswith(want):
        got = Quoted(f"{identity(file)[: len(want)]} in {file}")
        raise expected(f"weights {address}", f"a file whose SHA-256 begins with {want}", got, "to delete that file")
    return file


def timm_name(architecture: str | None) -> str:
    """The name in timm's hub of an architecture's published weights.

    Raises:
        UserError: none is known.
    """
    family, _, size = (architecture or "").partition("_")
    said = published(architecture) if architecture and architecture in ARCHITECTURES else None
    if family in TIMM_FAMILIES and said is not None:
        pixels = "_384" if said.image_size == 384 else ""
        return f"{family}_{size.removesuffix('_384')}.{TIMM_TAG}{pixels}"
    got = Quoted(f"no URL known for {architecture or 'a configuration of your own'}")
    hint = f"a file from github.com/{said.repository}, by its path" if said else "pretrained='my_weights.pth'"
    raise expected("pretrained='official'", "a model whose published weights timm hosts", got, hint)


def _from_timm(name: str, architecture: str | None) -> Checkpoint:
    """Weights of timm's hub under official names."""
    where = f"weights {TIMM}{name}"
    timm = _timm(where)
    try:
        theirs = timm.create_model(name, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:  # not online, no such model, no such weights
        said = " ".join(str(error).split()) or type(error).__name__
        hint = "a name of timm.list_pretrained(), and a connection; or the path of a file"
        raise expected(where, "weights that timm can load", Quoted(said[:300]), hint) from None
    return Checkpoint(official_from_timm(theirs, architecture, where), Path(f"{TIMM}{name}"), "", ())


def _timm(where: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # timm's own, when it is imported
            import timm
    except ImportError:
        raise expected(where, "the package timm", None, 'pip install "mixlab[timm]"') from None
    return timm


def official_from_timm(theirs: Any, architecture: str | None, where: str) -> dict[str, Tensor]:
    """The state of timm's model under official names.

    timm's own conversion of official files says which entry is which: it is run once on a state dict whose entries hold
    their own number.

    Raises:
        UserError: the model is not one of timm's MetaFormers, or another one than ``architecture``.
    """
    module = import_module(type(theirs).__module__)
    known = architecture is not None and official_names(architecture) is not None
    if module.__name__ != "timm.models.metaformer" or not known:
        got = f"{type(theirs).__name__} for {architecture or 'a configuration of your own'}"
        raise expected(where, f"a model of {', '.join(TIMM_FAMILIES)}, as published", Quoted(got))
    assert architecture is not None
    with torch.device("meta"):  # names and shapes; the head of another data set has other sizes and the same names
        config = dataclasses.replace(ARCHITECTURES[architecture](), architecture=architecture)
        official = to_official(MetaFormer(config))
    numbered = {k: torch.tensor(float(i)).expand(v.shape) for i, (k, v) in enumerate(official.items())}
    try:
        converted = module.checkpoint_filter_fn(dict(numbered), theirs)
    except KeyError as error:
        raise expected(where, f"the weights of {architecture}", Quoted(f"no entry {error} in timm's model")) from None
    names, state = list(official), theirs.state_dict()
    translated = {names[int(value.flatten()[0])]: state[key] for key, value in converted.items() if key in state}
    if len(translated) != len(state) or len(translated) != len(official):
        got = Quoted(f"{len(state)} entries instead of {len(official)}")
        raise expected(where, f"the weights of {architecture}", got)
    return {key: value.reshape(_as(official[key], value)) for key, value in translated.items()}


def _as(official: Tensor, value: Tensor) -> tuple[int, ...]:
    """The official shape where the numbers fit it; another number of classes keeps its own."""
    return tuple(official.shape if official.numel() == value.numel() else value.shape)
