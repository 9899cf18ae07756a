"""Loading a checkpoint into a model that was asked to differ from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike

import torch
import torch.nn.functional as F
from torch import Tensor

from mixlab.architectures import ARCHITECTURES, official_names
from mixlab.errors import Quoted, expected
from mixlab.heads import HEADS
from mixlab.metaformer import MetaFormer
from mixlab.ops.resize import INTERPOLATION
from mixlab.weights.official import official_keys, to_own
from mixlab.weights.report import LoadReport
from mixlab.weights.sources import open_source

STEM = "stages.0.embed."
DECODER = "decoder."
_BLOCK = re.compile(r"(stages\.\d+\.blocks\.\d+)\.token_mixer\.")


def load_pretrained(model: MetaFormer, path: str | PathLike[str], *, entry: str | None = None) -> LoadReport:
    """Load a checkpoint file, with official names or our own, into a model of the same architecture.

    What the model was asked to have differently is announced by that: a classifier for another number of classes, other
    image channels, feature maps instead of logits, another token mixer. It is adapted or stays fresh, and the report
    and ``model.events`` say so. Everything else must fit.

    Args:
        model: the model; its device and dtype stay.
        path: a file that :func:`open_checkpoint` reads, an ``https://`` URL, ``timm:NAME`` or ``official``, see
            :func:`mixlab.weights.open_source`.
        entry: which of the file's entries to take, by default the averaged weights.

    Raises:
        UserError: the file cannot be read, or holds what the model has not, or the other way round.
    """
    checkpoint = open_source(path, model.config.architecture, entry=entry)
    given = _encoder_names(checkpoint.state)
    ours = is_ours(model, given)
    state = given if ours else to_own(model, given)
    report = match(model, state, checkpoint.source, trust_mixers=ours)
    model.new_parameters = set(report.new)
    model.events.append({"kind": "weights", "message": report.summary()})
    return report


def _encoder_names(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The entries of a dense model of ours under the names that they have in its encoder alone; its decoder's stay."""
    if not any(key.startswith("encoder.stages.") for key in state):
        return state
    return {key.removeprefix("encoder."): value for key, value in state.items()}


def match(model: MetaFormer, state: Mapping[str, Tensor], source: str, *, trust_mixers: bool) -> LoadReport:
    """Load entries under our own names, and account for every one.

    ``trust_mixers``: entries of an exchanged mixer are that mixer's, as in a file of ours. In a published file they are
    the former mixer's, and an equal name and shape are a coincidence.
    """
    own, report = model.state_dict(), LoadReport(source)
    announced = _Announced(model, state, trust_mixers)
    loaded, wrong = dict(own), []
    for key in dict.fromkeys([*own, *state]):
        value, given, why = own.get(key), state.get(key), announced.reason(key)
        if value is not None and given is not None and given.shape == value.shape and not announced.is_fresh(key):
            loaded[key] = given
            report.kept[key] = value.numel()
        elif value is not None and given is not None and (made := _adapted(key, given, value)) is not None:
            loaded[key], report.adapted[key] = made
        elif why is None:
            wrong.append(f"{key} {_misfit(given, value)}")
        else:
            if value is not None:
                report.new[key] = why
            if given is not None:
                report.dropped[key] = why
    if wrong:
        shown = "; ".join(wrong[:8]) + (f"; and {len(wrong) - 8} more" if len(wrong) > 8 else "")
        norms = any(w.startswith("out_norms.") for w in wrong)
        hint = "out_norm='group_norm' or the norm that the dense model has" if norms else ""
        raise expected(f"weights from {source}", "every entry to fit the model", Quoted(shown), hint)
    report.check(own, state)
    model.load_state_dict(loaded)
    return report


def _adapted(key: str, given: Tensor, value: Tensor) -> tuple[Tensor, str] | None:
    """The entry for a model with other image channels, or for images of another size; and how it was made."""
    if key.startswith(STEM) and _differ_in_channels(given, value):
        rule = "their sum" if value.shape[1] == 1 else f"in turn, times {given.shape[1]}/{value.shape[1]}"
        how = f"from {given.shape[1]} to {value.shape[1]} image channels: {rule}"
        return other_channels(given, value.shape[1]), how
    if key.endswith("position.embedding") and given.shape[:2] == value.shape[:2] and given.ndim == value.ndim:
        size, mode = value.shape[2:], INTERPOLATION[given.ndim - 2]
        resized = F.interpolate(given, size=size, mode=mode, align_corners=False)
        return resized, f"{mode} from a grid of {tuple(given.shape[2:])} to {tuple(size)}"
    return None


def _misfit(given: Tensor | None, value: Tensor | None) -> str:
    if given is None:
        return "missing"
    return "left over" if value is None else f"of shape {tuple(given.shape)} for {tuple(value.shape)}"


def own_names(model: MetaFormer, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict's entries under our names: a file of ours has them, any other must have the official ones."""
    return dict(state) if is_ours(model, state) else to_own(model, state)


def is_ours(model: MetaFormer, state: Mapping[str, Tensor]) -> bool:
    """The state dict has more of our names than of the official ones."""
    own = set(model.state_dict())
    name = model.config.architecture
    if name is None or official_names(name) is None or model.config.spatial_dims != 2:
        return True
    return len(own & set(state)) > len(set(official_keys(model).values()) & set(state))


class _Announced:
    """What the user asked to be different from the published model: our key to the reason, or None."""

    def __init__(self, model: MetaFormer, state: Mapping[str, Tensor], trust_mixers: bool) -> None:
        config = model.config
        base = ARCHITECTURES[config.architecture]() if config.architecture else config
        self.given = set(state)
        self.head_left_out = model.head is None
        self.from_dense = any(key.startswith(DECODER) for key in state)
        self.classes = config.num_classes
        self.classifier = self._classifier(model, state)
        self.fresh: set[str] = set()
        self.changed: set[str] = set()
        self.embeddings: set[str] = set()
        self.positions: set[str] = set()
        for s, (stage, original) in enumerate(zip(config.stages, base.stages, strict=True)):
            if stage.embedding != original.embedding and not trust_mixers:
                self.embeddings.add(f"stages.{s}.embed.")
            if stage.position != original.position:
                self.positions.add(f"stages.{s}.position.")
            for b in range(stage.depth):
                mixer, published = stage.mixer_of(b), original.mixer_of(b)
                if mixer != published:
                    self.changed.add(f"stages.{s}.blocks.{b}")
                if mixer.name != published.name and not trust_mixers:
                    self.fresh.add(f"stages.{s}.blocks.{b}")

    @staticmethod
    def _classifier(model: MetaFormer, state: Mapping[str, Tensor]) -> set[str]:
        """Entries of the head that go with the number of classes, if the file has another one than the model."""
        if model.head is None:
            return set()
        own = {k: v for k, v in model.state_dict().items() if k.startswith("head.")}
        given = {k: v for k, v in state.items() if k.startswith("head.")}
        twin = HEADS.build(model.config.head, model.config.stages[-1].width, 0, spatial_dims=model.config.spatial_dims)
        stays = {f"head.{k}" for k in twin.state_dict()}
        resized = any(own[k].shape[:1] != given[k].shape[:1] for k in (set(own) & set(given)) - stays)
        return (set(own) | set(given)) - stays if resized or model.config.num_classes == 0 else set()

    def is_fresh(self, key: str) -> bool:
        """The entry keeps its fresh value even where the file has one of the same name and shape."""
        block = _BLOCK.match(key)
        embedding = key.startswith(tuple(self.embeddings))
        return embedding or key in self.classifier or (block is not None and block[1] in self.fresh)

    def reason(self, key: str) -> str | None:
        """Why an entry may be fresh, or dropped."""
        if key.startswith("head.") and self.head_left_out:
            return "feature maps are returned"
        if key in self.classifier:
            return f"{self.classes} classes"
        if self.from_dense and key.startswith(DECODER):
            return "the decoder of another model"
        if self.from_dense and key.startswith("head."):
            return "the file is of a dense model, which has no head"
        if self.from_dense and key.startswith("out_norms.") and not self.head_left_out:
            return "norm of maps, for a decoder"
        block = _BLOCK.match(key)
        if block is not None and block[1] in self.changed:
            return "another token mixer"
        if key.startswith(tuple(self.embeddings)):
            return "another patch embedding"
        if key.startswith(tuple(self.positions)):
            return "another position"
        if key.startswith(("tokens", "token_projections")):
            return "global tokens"
        is_new_norm = key.startswith("out_norms.") and key not in self.given
        return "norm of returned maps, not in the file" if is_new_norm else None


def _differ_in_channels(given: Tensor, value: Tensor) -> bool:
    return given.ndim == value.ndim > 2 and given.shape[0] == value.shape[0] and given.shape[2:] == value.shape[2:]


def other_channels(weight: Tensor, channels: int) -> Tensor:
    """A stem's kernel ``(D, C, ...)`` for another number of image channels.

    One channel gets the sum over ``C``, so that a grey image gives what its copies in all channels would; more channels
    take the published ones in turn, scaled by ``C / channels``, so that the sum is about the same.
    """
    given = weight.shape[1]
    if channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = torch.cat([weight] * -(-channels // given), dim=1)[:, :channels]
    return repeated * (given / channels)
