"""Weights of baselines, every entry accounted for."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mixlab.baselines.base import Baseline
from mixlab.errors import Quoted, UserError, expected
from mixlab.weights import LoadReport, open_checkpoint
from mixlab.weights.checkpoint import Checkpoint
from mixlab.weights.inflate import check_inflate, inflated_kernel
from mixlab.weights.kernels import fitted
from mixlab.weights.loading import other_channels
from mixlab.weights.sources import OFFICIAL, TIMM, local_file

State = Mapping[str, Tensor]


def load_baseline(
    model: Baseline,
    source: str | PathLike[str],
    *,
    stem: str,
    classifier: str,
    prefix: str = "",
    renamed: Callable[[State], State] = dict,
    notes: Sequence[str] = (),
) -> LoadReport:
    """Load a checkpoint into a baseline.

    Image channels are adapted as everywhere in mixlab; a kernel goes into the centre of a larger one, zeros around it;
    2D kernels fill 3D ones as ``config.inflate`` says; a classifier of another number of classes stays fresh.
    Everything else must fit.

    Args:
        model: the baseline; its ``events`` get the report.
        source: a file that :func:`mixlab.weights.open_checkpoint` reads, the URL of one, ``official``, or ``timm:NAME``
            for weights of timm's hub.
        stem: the baseline's key of the weight that takes the image's channels.
        classifier: prefix of the classifier's entries in the baseline.
        prefix: what stands before the file's names in the baseline.
        renamed: the file's state dict under the names behind ``prefix``.
        notes: what ``renamed`` wrote down; read after it was called.

    Raises:
        UserError: the file cannot be read, or holds what the network has not, or the other way round.
    """
    checkpoint = _read(model, fspath(source))
    given = {f"{prefix}{key}": value for key, value in renamed(checkpoint.state).items()}
    own, wrong = model.state_dict(), []
    adapted = partial(_adapted, stem=stem, how=model.config.inflate)
    report, loaded = LoadReport(checkpoint.source, notes=[*notes]), dict(own)
    fresh = _fresh_classifier(own, given, f"{classifier}.")
    for key in dict.fromkeys([*own, *given]):
        value, there = own.get(key), given.get(key)
        if fresh and key.startswith(f"{classifier}."):
            if value is not None:
                report.new[key] = fresh
            if there is not None:
                report.dropped[key] = fresh
        elif value is not None and there is not None and value.shape == there.shape:
            loaded[key] = there
            report.kept[key] = value.numel()
        elif value is not None and there is not None and (made := adapted(key, there, value)) is not None:
            loaded[key], report.adapted[key] = made
        elif value is not None and there is None and key.endswith("num_batches_tracked"):
            report.new[key] = "a counter that old files lack"
        else:
            wrong.append(f"{key.removeprefix(prefix)} {_misfit(there, value)}")
    if wrong:
        shown = "; ".join(wrong[:8]) + (f"; and {len(wrong) - 8} more" if len(wrong) > 8 else "")
        where = f"weights from {checkpoint.source}"
        raise expected(where, f"every entry to fit {model.config.architecture}", Quoted(shown), _hint(own, given))
    report.check(own, given)
    model.load_state_dict(loaded)
    model.new_parameters = set(report.new)
    model.events.append({"kind": "weights", "message": report.summary()})
    return report


def filtered(state: State, network: nn.Module, notes: list[str]) -> State:
    """An authors' state dict through timm's own filter for a network of timm, which may rename and resize entries."""
    rename = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    own = network.state_dict()
    if rename is None or (state.keys() == own.keys() and all(state[k].shape == v.shape for k, v in own.items())):
        return state
    made = dict(rename(dict(state), network))
    for key, value in made.items():
        if key in state and state[key].shape != value.shape:
            notes.append(f"{key} resized by timm from {tuple(state[key].shape)} to {tuple(value.shape)}")
    return made


def _read(model: Baseline, source: str) -> Checkpoint:
    """A checkpoint from wherever it is.

    Raises:
        UserError: it cannot be reached or read, or nobody is known to host weights of this baseline.
    """
    if source != OFFICIAL and not source.startswith(TIMM):
        return open_checkpoint(local_file(source))
    name = model.hub_name if source == OFFICIAL else source.removeprefix(TIMM)
    where = f"weights of {model.config.architecture}"
    if not name:
        raise expected(where, "the path of a file: no URL is known", source)
    try:
        network = import_timm(where).create_model(name, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:  # not online, no such weights
        if isinstance(error, UserError):
            raise
        said = " ".join(str(error).split()) or type(error).__name__
        hint = "a name of timm.list_pretrained(), and a connection; or the path of a file"
        raise expected(where, "weights that timm can load", Quoted(said[:300]), hint) from None
    return Checkpoint(network.state_dict(), Path(f"{TIMM}{name}"), "", ())


def import_timm(where: str) -> Any:
    """The package timm.

    Raises:
        UserError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # timm's own, when it is imported
            import timm
    except ImportError:
        raise expected(where, "the package timm", None, "pip install 'mixlab[timm]'") from None
    return timm


def _fresh_classifier(own: State, given: State, prefix: str) -> str:
    """Why the classifier stays fresh; empty if it does not."""
    ours = {k: v.shape for k, v in own.items() if k.startswith(prefix)}
    theirs = {k: v.shape for k, v in given.items() if k.startswith(prefix)}
    if ours == theirs:
        return ""
    if not theirs:
        return "the file has no classifier"
    return f"{next(iter(ours.values()))[0]} classes" if ours else "features instead of classes"


def _adapted(key: str, given: Tensor, value: Tensor, stem: str, how: str | None) -> tuple[Tensor, str] | None:
    """The stem for other image channels, a kernel for a larger window or for volumes; and how it was made."""
    steps: list[str] = []
    if given.ndim < 3 or value.ndim < 3 or given.shape[0] != value.shape[0]:
        return None
    if key == stem and given.shape[1] != value.shape[1]:
        steps.append(f"from {given.shape[1]} to {value.shape[1]} image channels")
        given = other_channels(given, value.shape[1])
    if given.ndim == 4 and value.ndim == 5 and how is not None:
        given, said = fitted(given, tuple(value.shape[3:]))
        given = inflated_kernel(given, value.shape[2], check_inflate(how))
        steps += [*filter(None, [said]), f"{how}: 2D kernel to {value.shape[2]} slices"]
    elif given.ndim == value.ndim and given.shape[1] == value.shape[1] and key != stem:
        given, said = fitted(given, tuple(value.shape[2:]))
        steps += filter(None, [said])
    return (given, ", then ".join(steps)) if steps and given.shape == value.shape else None


def _misfit(given: Tensor | None, value: Tensor | None) -> str:
    if given is None:
        return "missing"
    return "left over" if value is None else f"of shape {tuple(given.shape)} for {tuple(value.shape)}"


def _hint(own: State, given: State) -> str:
    """Weights of 2D kernels in a 3D network are the likely slip."""
    flat = any(k in own and own[k].ndim == 5 and v.ndim == 4 for k, v in given.items())
    return "a file of 3D weights, or inflate: centre (or mean), as these are 2D" if flat else ""
