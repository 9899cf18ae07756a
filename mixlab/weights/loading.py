"""Loading a checkpoint into a model that was asked to differ from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike

import torch
from torch import Tensor

from mixlab.architectures import ARCHITECTURES, official_names
from mixlab.errors import Quoted, expected
from mixlab.metaformer import MetaFormer
from mixlab.weights.checkpoint import open_checkpoint
from mixlab.weights.official import official_keys, to_own
from mixlab.weights.report import LoadReport

STEM = "stages.0.embed."


def load_pretrained(model: MetaFormer, path: str | PathLike[str], *, entry: str | None = None) -> LoadReport:
    """Load a checkpoint file, with official names or our own, into a model of the same architecture.

    What the model was asked to have differently is announced by that: a classifier for another number of classes, other
    image channels, feature maps instead of logits, another token mixer. It is adapted or stays fresh, and the report
    and ``model.events`` say so. Everything else must fit.

    Args:
        model: the model; its device and dtype stay.
        path: a file that :func:`open_checkpoint` reads.
        entry: which of the file's entries to take, by default the averaged weights.

    Raises:
        UserError: the file cannot be read, or holds what the model has not, or the other way round.
    """
    checkpoint = open_checkpoint(path, entry=entry)
    report = match(model, own_names(model, checkpoint.state), checkpoint.source)
    model.events.append({"kind": "weights", "message": report.summary()})
    return report


def match(model: MetaFormer, state: Mapping[str, Tensor], source: str) -> LoadReport:
    """Load entries under our own names, and account for every one."""
    own, report = model.state_dict(), LoadReport(source)
    announced = _Announced(model)
    loaded, wrong = dict(own), []
    for key in dict.fromkeys([*own, *state]):
        value, given, why = own.get(key), state.get(key), announced.reason(key)
        if value is not None and given is not None and given.shape == value.shape:
            loaded[key] = given
            report.kept[key] = value.numel()
        elif value is not None and given is not None and key.startswith(STEM) and _differ_in_channels(given, value):
            loaded[key] = other_channels(given, value.shape[1])
            report.adapted[key] = f"from {given.shape[1]} to {value.shape[1]} image channels, in turn, sums kept"
        elif why is None:
            wrong.append(f"{key} {_misfit(given, value)}")
        else:
            if value is not None:
                report.new[key] = why
            if given is not None:
                report.dropped[key] = why
    if wrong:
        shown = "; ".join(wrong[:8]) + (f"; and {len(wrong) - 8} more" if len(wrong) > 8 else "")
        raise expected(f"weights from {source}", "every entry to fit the model", Quoted(shown))
    report.check(own, state)
    model.load_state_dict(loaded)
    return report


def _misfit(given: Tensor | None, value: Tensor | None) -> str:
    if given is None:
        return "missing"
    return "left over" if value is None else f"of shape {tuple(given.shape)} for {tuple(value.shape)}"


def own_names(model: MetaFormer, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict's entries under our names: a file of ours has them, any other must have the official ones."""
    own = set(model.state_dict())
    name = model.config.architecture
    if name is None or official_names(name) is None or model.config.spatial_dims != 2:
        return dict(state)
    theirs = set(official_keys(model).values())
    return dict(state) if len(own & set(state)) > len(theirs & set(state)) else to_own(model, state)


class _Announced:
    """What the user asked to be different from the published model: our key to the reason, or None."""

    def __init__(self, model: MetaFormer) -> None:
        config = model.config
        base = ARCHITECTURES[config.architecture]() if config.architecture else config
        self.head = "feature maps are returned" if model.head is None else f"{config.num_classes} classes"
        self.exchanged = {
            f"stages.{s}.blocks.{b}"
            for s, (stage, original) in enumerate(zip(config.stages, base.stages, strict=True))
            for b in range(stage.depth)
            if stage.mixer_of(b) != original.mixer_of(b)
        }

    def reason(self, key: str) -> str | None:
        """Why an entry may be fresh, or dropped."""
        if key.startswith("head."):
            return self.head
        block = re.match(r"(stages\.\d+\.blocks\.\d+)\.token_mixer\.", key)
        if block is not None and block[1] in self.exchanged:
            return "another token mixer"
        if key.startswith(("tokens", "token_projections")):
            return "global tokens"
        return "norm of returned maps" if key.startswith("out_norms.") else None


def _differ_in_channels(given: Tensor, value: Tensor) -> bool:
    return given.ndim == value.ndim > 2 and given.shape[0] == value.shape[0] and given.shape[2:] == value.shape[2:]


def other_channels(weight: Tensor, channels: int) -> Tensor:
    """A stem's kernel ``(D, C, ...)`` for another number of image channels.

    One channel gets the sum over ``C``, so that a grey image gives what its copies in all channels would; more channels
    take the published ones in turn, scaled by ``C / channels``.
    """
    given = weight.shape[1]
    if channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = torch.cat([weight] * -(-channels // given), dim=1)[:, :channels]
    return repeated * (given / channels)
