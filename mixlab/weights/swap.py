"""Another token mixer in a model that has weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from mixlab.errors import UserError, expected
from mixlab.metaformer import Block, MetaFormer
from mixlab.mixers import Mixer
from mixlab.registry import Part
from mixlab.weights import pooling_rules, warm_rules  # noqa: F401  they register their rules
from mixlab.weights.change import output, random_images, relative_change
from mixlab.weights.conversions import (
    differences,
    pooling_entries,
    resolve,
    same_mixer,
    warm_entries,
)
from mixlab.weights.report import LoadReport

Parts = tuple[Part, ...]


def swap_mixers(
    model: MetaFormer,
    mixer: str | Mapping[str, Any] | Part | Sequence[Any],
    *,
    stages: str | None = None,
    init: str = "random",
    images: Tensor | None = None,
    **options: Any,
) -> LoadReport:
    """Exchange the token mixers of a model in place; everything else stays as it is.

    The model's configuration changes with it, so that ``MetaFormer(model.config)`` takes its state dict. Blocks that
    have this mixer with these options already are left alone, unless they shall start as pooling.

    Args:
        model: a model with weights; its device, dtype and modes stay.
        mixer: a name, a mapping with options, or a list of them that is cycled over a stage's blocks.
        stages: one letter a stage, T where mixers are exchanged and P where they stay; default all T.
        init: how the new mixers start. ``random``: like those of a fresh model. ``warm``: from the former mixers'
            weights, where these mean the same (see :mod:`mixlab.weights.warm_rules`); options that the weights need
            and that are not given, such as the head size, are the former mixer's. ``pooling``: acting as pooling (see
            :mod:`mixlab.weights.pooling_rules`).
        images: ``(B, C, *spatial)`` to measure the change of the output on; default one image of noise.
        options: options of the mixer, e.g. ``kernel_size=5``.

    Returns:
        What became of every entry of the state dict, how much the output changed, and what else differs. Print it; it
        is also the last of ``model.events``.

    Raises:
        UserError: letters that do not fit, an unknown mixer or option, or a start that there is no rule for. The model
            is then as it was.

    Example:
        >>> model = create_model("poolformer_s12", pretrained="poolformer_s12.pth")
        >>> print(swap_mixers(model, "local_attention", kernel_size=5, stages="PPTT", init="pooling"))
    """
    mixers = [mixer] if isinstance(mixer, str | Mapping | Part) else mixer
    parts = tuple(Part.of(m).with_options(**options) for m in mixers)
    count = len(model.config.stages)
    pattern = "T" * count if stages is None else stages
    if len(pattern) != count or not set(pattern) <= {"P", "T"}:
        raise expected("swap_mixers stages", f"{count} letters, T to swap and P to leave", stages, repr("T" * count))
    if not parts:
        raise expected("swap_mixers mixer", "a mixer or a list of them", mixer)
    wanted = [
        resolved(stage.mixers, parts, stage.depth, [init]) if letter == "T" else stage.mixers
        for stage, letter in zip(model.config.stages, pattern, strict=True)
    ]
    inits = [(init if letter == "T" else "random",) for letter in pattern]
    report = put_mixers(model, wanted, inits, images)
    model.events.append({"kind": "weights", "message": report.summary()})
    return report


def resolved(former: Parts, wanted: Parts, depth: int, inits: Sequence[str]) -> Parts:
    """A stage's mixers with the options that their start needs (see :func:`mixlab.weights.conversions.resolve`); all
    three are cycled over its blocks."""
    parts = [resolve(former[b % len(former)], wanted[b % len(wanted)], inits[b % len(inits)]) for b in range(depth)]
    for length in range(1, depth + 1):  # the shortest list that is cycled
        if all(parts[b] == parts[b % length] for b in range(depth)):
            return tuple(parts[:length])
    raise AssertionError("a list is its own cycle")


def put_mixers(
    model: MetaFormer, wanted: Sequence[Parts], inits: Sequence[Sequence[str]], images: Tensor | None = None
) -> LoadReport:
    """Exchange mixers in place, stage by stage; ``wanted`` and ``inits`` have one entry a stage, which is cycled over
    its blocks."""
    stages = tuple(dataclasses.replace(s, mixers=m) for s, m in zip(model.config.stages, wanted, strict=True))
    config = dataclasses.replace(model.config, stages=stages)
    somewhere = next(model.parameters())
    # Its mixers start as those of any model, and it refuses what does not fit.
    fresh = MetaFormer(config).to(somewhere.device, somewhere.dtype)
    before = model.state_dict()
    report = LoadReport("this model before its mixers were exchanged")
    exchanged: list[tuple[Block, Block]] = []
    for s, (old_stage, new_stage) in enumerate(zip(model.each_stage(), fresh.each_stage(), strict=True)):
        for b, (old, new) in enumerate(zip(old_stage.each_block(), new_stage.each_block(), strict=True)):
            former, mixer, init = model.config.stages[s].mixer_of(b), stages[s].mixer_of(b), inits[s][b % len(inits[s])]
            if same_mixer(former, mixer) and init != "pooling":
                continue
            try:
                _start(report, f"stages.{s}.blocks.{b}.token_mixer", (former, old), (mixer, new), init)
            except UserError as error:
                raise UserError(f"stage {s}, block {b}: {error}") from None
            exchanged.append((old, new))
    images = random_images(model, fresh) if images is None else images
    outputs = output(model, images)
    for old, new in exchanged:
        old.token_mixer, old.takes_tokens = new.token_mixer, new.takes_tokens
    for stage, stage_config in zip(model.each_stage(), stages, strict=True):
        stage.config = stage_config
    model.config = config
    model.events = [e for e in model.events if e["kind"] != "tokens_bypass"] + fresh.events
    touched = {*report.kept, *report.adapted, *report.new}
    after = model.state_dict()
    report.kept |= {k: v.numel() for k, v in after.items() if k not in touched}
    report.check(after, before)
    model.new_parameters = (model.new_parameters & set(report.kept)) | set(report.new)
    report.notes = list(dict.fromkeys(report.notes))
    report.output_change = relative_change(outputs, output(model, images))
    shape = "x".join(map(str, images.shape))
    report.notes.append(f"the swap changed the output by {report.output_change:.3g} of its size (images of {shape})")
    return report


def _start(report: LoadReport, prefix: str, old: tuple[Part, Block], new: tuple[Part, Block], init: str) -> None:
    """Fill a new mixer, not yet in its place, and report its entries and those of the former one."""
    (former, old_block), (part, new_block) = old, new
    gone, mixer = old_block.token_mixer, new_block.token_mixer
    assert isinstance(gone, Mixer)
    assert isinstance(mixer, Mixer)
    mixer.train(old_block.training)
    state, given = mixer.state_dict(), gone.state_dict()
    used: set[str] = set()
    why = "as in a fresh model"
    if init == "pooling":
        values, said = pooling_entries(former, part, mixer)
        state |= values
        report.new |= {f"{prefix}.{k}": f"{part.name} acts as pooling: {said}" for k in values}
        if not values and state:
            why = said
        report.notes.append(f"{part.name} starts as {said}")
    elif init == "warm":
        made = warm_entries(former, gone, part, mixer)
        for key, entry in made.items():
            origins = entry.origins or (key,)
            used |= set(origins)
            state[key] = entry.value
            if not entry.how and origins == (key,):
                report.kept[f"{prefix}.{key}"] = entry.value.numel()
                continue
            report.adapted[f"{prefix}.{key}"] = entry.how
            if origins != (key,):
                report.origins[f"{prefix}.{key}"] = tuple(f"{prefix}.{o}" for o in origins)
        report.notes += [f"{part.name}: {said}" for said in differences(former, gone, part, mixer)]
        why = f"{former.name} has none that fits; as in a fresh model"
    listed = {*report.kept, *report.adapted, *report.new}
    report.new |= {f"{prefix}.{k}": why for k in state if f"{prefix}.{k}" not in listed}
    left = f"{part.name} is in the place of {former.name}"
    report.dropped |= {f"{prefix}.{k}": left for k in given if k not in used}
    mixer.load_state_dict(state)
