"""A model with the weights that its configuration asks for: loaded, inflated, its mixers exchanged, in this order."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from mixlab.errors import expected
from mixlab.metaformer import MetaFormer
from mixlab.metaformer.config import MetaFormerConfig
from mixlab.registry import Part
from mixlab.weights.inflate import check_inflate, inflate_into
from mixlab.weights.loading import load_pretrained
from mixlab.weights.swap import Parts, put_mixers

#: Options of mixers that have one number per axis.
PER_AXIS = {"kernel_size", "dilation", "stride", "pool_size", "sr_ratio", "pretrain_size", "lepe_kernel"}


def started(
    target: MetaFormerConfig,
    former: Sequence[Parts],
    inits: Sequence[Sequence[str]],
    *,
    pretrained: str | None,
    how: str | None = None,
    trained: bool = False,
) -> MetaFormer:
    """Build a model and give it weights.

    Args:
        target: the model's configuration, 3D where ``how`` is given.
        former: the mixers that the weights belong to, stage by stage.
        inits: how the mixers of ``target`` start from them, stage by stage, cycled over the blocks.
        pretrained: where the weights come from (see :func:`mixlab.weights.open_source`); None for none.
        how: ``centre`` or ``mean`` to inflate 2D weights (see :mod:`mixlab.weights.inflate`); None for weights of the
            model's own dimension.
        trained: the weights are those of a training with the mixers ``former``, whatever the published ones are.

    Raises:
        UserError: a source or a part that does not fit, or a start without rule.
    """
    check_starts(inits, pretrained, how, target.spatial_dims)
    exchanged = trained or any(init != "random" for stage in inits for init in stage)
    if how is None and not exchanged:
        model = MetaFormer(target)
        if pretrained is not None:
            load_pretrained(model, pretrained)
        return model
    before = _with_mixers(target, former) if exchanged else target
    model = MetaFormer(before if how is None else _flat(before))
    report = None if pretrained is None else load_pretrained(model, pretrained)
    if how is not None:
        assert report is not None
        model, inflated = inflate_into(before, model, how, report.new)
        report = report.then(inflated)
    if exchanged:
        model.config = dataclasses.replace(model.config, global_tokens=target.global_tokens)
        swapped = put_mixers(model, [s.mixers for s in target.stages], inits)
        report = swapped if report is None else report.then(swapped)
    assert report is not None
    assert model.config == target
    model.new_parameters = set(report.new) if pretrained is not None else set()
    model.events = [e for e in model.events if e["kind"] != "weights"]
    model.events.append({"kind": "weights", "message": report.summary()})
    return model


def check_starts(inits: Sequence[Sequence[str]], pretrained: str | None, how: str | None, dims: int) -> None:
    """Refuse what contradicts itself.

    Raises:
        UserError: a warm start or an inflation without weights, or an inflation of a model that is not 3D.
    """
    if pretrained is None and any(init == "warm" for stage in inits for init in stage):
        raise expected("init='warm'", "weights to start from", None, "pretrained='my_weights.pth'")
    if how is None:
        return
    check_inflate(how)
    if pretrained is None:
        raise expected(f"inflate={how!r}", "2D weights to inflate", None, "pretrained='my_weights.pth'")
    if dims != 3:
        raise expected(f"inflate={how!r}", "a 3D model", f"spatial_dims={dims}", "spatial_dims=3, or no inflate")


def _with_mixers(config: MetaFormerConfig, mixers: Sequence[Parts]) -> MetaFormerConfig:
    """The configuration with other mixers, past which global tokens may go as long as it only carries weights."""
    stages = tuple(dataclasses.replace(s, mixers=tuple(m)) for s, m in zip(config.stages, mixers, strict=True))
    tokens = config.global_tokens
    tokens = None if tokens is None else dataclasses.replace(tokens, on_unsupported="bypass")
    return dataclasses.replace(config, stages=stages, global_tokens=tokens)


def _flat(config: MetaFormerConfig) -> MetaFormerConfig:
    """The 2D configuration that a 3D one is inflated from: sizes lose their depth."""
    size = config.image_size
    flat = size[1:] if isinstance(size, tuple) else size
    stages = tuple(dataclasses.replace(s, mixers=tuple(_flat_part(p) for p in s.mixers)) for s in config.stages)
    return dataclasses.replace(config, stages=stages, spatial_dims=2, image_size=flat)


def _flat_part(part: Part) -> Part:
    return Part(part.name, {k: _flat_option(k, v) for k, v in part.options.items()})


def _flat_option(name: str, value: Any) -> Any:
    several = name in PER_AXIS and isinstance(value, list | tuple) and len(value) == 3
    return tuple(value[1:]) if several else value
