"""Which published models differ in more than a number: the expensive tests take the smallest of each kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterable

from mixlab.architectures import ARCHITECTURES
from mixlab.metaformer import MetaFormerConfig


def size_of(name: str) -> int:
    """About as many as the parameters of a model."""
    return sum(s.depth * s.width**2 for s in ARCHITECTURES[name]().stages)


def with_depth(config: MetaFormerConfig, most: int) -> MetaFormerConfig:
    """The model with at most so many blocks a stage."""
    stages = tuple(dataclasses.replace(s, depth=min(s.depth, most)) for s in config.stages)
    return dataclasses.replace(config, stages=stages)


def layers(name: str) -> Hashable:
    """Every layer of a model with its width and options; not how often it is there, nor the size of the images."""
    config = with_depth(ARCHITECTURES[name](), 1)
    return str(dataclasses.replace(config, architecture=None, image_size=None, drop_path_rate=0.0))


def parts(name: str) -> Hashable:
    """The names of a model's parts, stage by stage."""
    config = ARCHITECTURES[name]()
    stages = []
    for s in config.stages:
        optional = (s.norm, s.position, s.block_position, s.stage_norm)
        names = [None if p is None else p.name for p in (*s.mixers, *s.channel_mixers, s.embedding, *optional)]
        stages.append((*names, s.layer_scale is None, s.res_scale, s.repeat))
    return tuple(stages), str(config.head), config.image_size is None


def smallest(names: Iterable[str], kind: Callable[[str], Hashable]) -> list[str]:
    """The smallest model of each kind, in the order of the names."""
    names = list(names)
    least: dict[Hashable, str] = {}
    for name in sorted(names, key=size_of):
        least.setdefault(kind(name), name)
    return [name for name in names if name in least.values()]
