"""Weights that stand in for published ones, to test a study where the files are absent; and whether they are absent.

A stand-in has the names and shapes of the published file and numbers made by the rule of :mod:`mixlab.weights.fill`.
Nothing was learned: scores of a model that starts from it mean nothing. (Data: :mod:`mixlab.data.sources.stand_in`.)
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixlab.architectures import ARCHITECTURES, official_names
from mixlab.baselines import BASELINES, is_baseline, list_baselines, make_baseline
from mixlab.baselines.loading import import_timm
from mixlab.errors import UserError, expected, unknown
from mixlab.metaformer import MetaFormer
from mixlab.weights import to_official
from mixlab.weights.fill import fill_
from mixlab.weights.sources import OFFICIAL, TIMM, cached_file, is_url, timm_name

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
HUGGING_FACE = ("hf-hub:", "hf_hub:")


def write_stand_in(name: str, folder: str | PathLike[str], kernel_size: Any = None) -> Path:
    """Write ``stand-in-NAME.pth``: a state dict in the form of the model's published weights.

    It is for images of 3 channels and 1000 classes. MetaFormers have the names of their official repository
    (``metaformer_nano``, which has none, our own), baselines those of torchvision, timm or DINOv2. A file has the same
    bytes each time it is written, so that a run that starts from it keeps its hash.

    Args:
        name: a model of ``mixlab list models``, or ``timm:NAME``.
        folder: where the file goes; it is made if need be.
        kernel_size: window of a baseline that has an option for that, such as ``resnet18``; None for the published one.

    Returns:
        The file.

    Raises:
        UserError: there is no such model, it has no such window, or its package is not installed.
    """
    with torch.random.fork_rng(devices=[]):  # a model draws numbers when it is built
        state = _baseline_state(name, kernel_size) if is_baseline(name) else _official_state(name, kernel_size)
    fill_(state)
    size = "x".join(map(str, kernel_size)) if isinstance(kernel_size, list | tuple) else kernel_size
    label = name.replace(":", "-").replace("/", "-") + (f"-k{size}" if size is not None else "")
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    # Beside its place first: another process never reads a part of it.
    with tempfile.TemporaryDirectory(dir=place, prefix=".stand-in-") as beside:
        part = Path(beside) / "state.pth"
        with part.open("wb") as file:  # given a path, torch writes the file's name into the file
            torch.save(state, file)
        return part.replace(place / f"stand-in-{label}.pth")


def _official_state(name: str, kernel_size: Any) -> dict[str, Tensor]:
    if name not in ARCHITECTURES:
        raise unknown("model", name, [*ARCHITECTURES, *list_baselines()])
    if kernel_size is not None:
        hint = "None: files hold the mixers that were published"
        raise expected(f"stand-in for {name}, kernel_size", "none", kernel_size, hint)
    model = MetaFormer(dataclasses.replace(ARCHITECTURES[name](), architecture=name))
    return to_official(model) if official_names(name) is not None else dict(model.state_dict())


def _baseline_state(name: str, kernel_size: Any) -> dict[str, Tensor]:
    options = {} if kernel_size is None else {"kernel_size": kernel_size}
    model = make_baseline(name, num_classes=1000, in_channels=3, spatial_dims=2, options=options)
    prefix = model.file_prefix
    return {k.removeprefix(prefix): v for k, v in model.state_dict().items() if k.startswith(prefix)}


def weights_at_hand(source: str | PathLike[str], architecture: str) -> bool:
    """Whether weights are on this machine: a file, or what a URL or a hub was asked for before. Nothing is read, and no
    network is asked.

    Args:
        source: what ``pretrained`` takes: a file, an ``https://`` URL, ``timm:NAME`` or ``official``.
        architecture: the model that the weights are for.

    Raises:
        UserError: nobody is known to host what ``source`` names.
    """
    text = fspath(source)
    if text == OFFICIAL:
        return _in_hub(_hub_name(architecture))
    if text.startswith(TIMM):
        return _in_hub(text.removeprefix(TIMM))
    return cached_file(text)[2].is_file() if is_url(text) else Path(text).expanduser().exists()


def _hub_name(architecture: str) -> str:
    """The name in timm's hub of a model's published weights."""
    if not is_baseline(architecture):
        return timm_name(architecture)
    family, _, name = architecture.partition(":")
    found = name or getattr(BASELINES[family], "hub_name", "")
    if not found:
        raise expected(f"weights of {architecture}", "the path of a file: no URL is known", OFFICIAL)
    return found


def _in_hub(name: str) -> bool:
    """Whether the file of weights that timm would load is in a cache of this machine."""
    try:
        timm = import_timm(f"weights {TIMM}{name}")
    except UserError:  # without timm a file in its cache cannot be loaded either
        return False
    if name.startswith(HUGGING_FACE):
        return _in_hugging_face(name.partition(":")[2], HUB_FILES)
    try:
        entry = timm.models.get_pretrained_cfg(name)
    except RuntimeError:  # no such tag
        entry = None
    if entry is None or not (entry.hf_hub_id or entry.url):
        raise expected(f"weights {TIMM}{name}", "a name of timm.list_pretrained()", name)
    if entry.hf_hub_id:
        return _in_hugging_face(entry.hf_hub_id, [entry.hf_hub_filename] if entry.hf_hub_filename else HUB_FILES)
    return (Path(torch.hub.get_dir()) / "checkpoints" / entry.url.rpartition("/")[2]).is_file()


def _in_hugging_face(repository: str, files: Sequence[str]) -> bool:
    from huggingface_hub import try_to_load_from_cache  # comes with timm

    name, _, revision = repository.partition("@")
    found = (try_to_load_from_cache(name, file, revision=revision or None) for file in files)
    return any(isinstance(path, str) for path in found)  # else None, or a note that there is no such file
