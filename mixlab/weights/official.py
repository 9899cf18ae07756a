"""State dicts under official names, in both directions.

An architecture states the repository's names (:class:`mixlab.architectures.OfficialNames`). Entries hold the same
numbers in the same order; where shapes differ (our pointwise layers are matrices, official ones often 1x1
convolutions) the architecture's rule gives the official one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from mixlab.architectures import ARCHITECTURES, OfficialNames, official_names
from mixlab.errors import Quoted, expected
from mixlab.metaformer import MetaFormer, MetaFormerConfig
from mixlab.weights.report import LoadReport

TOLERANCE = 1e-5  # of constants that a file stores and that follow from the configuration


def names_of(model: MetaFormer) -> OfficialNames:
    """The official names of a model's architecture.

    Raises:
        UserError: the model comes from no published architecture, or is not 2D.
    """
    name = model.config.architecture
    names = official_names(name) if name else None
    if names is None:
        raise expected("official names", "a model of a published architecture", name or "a configuration of your own")
    if model.config.spatial_dims != 2:
        raise expected(
            "official names", "a 2D model, as published", Quoted(f"spatial_dims={model.config.spatial_dims}")
        )
    return names


def official_keys(model: MetaFormer) -> dict[str, str]:
    """Our key to the official key, for every entry of the model.

    A part that the architecture does not have (a mixer put in by the user) keeps its own name below the block's.
    """
    table = names_of(model).table(_with_published_positions(model.config))
    return {key: _translate(key, table) for key in model.state_dict()}


def _with_published_positions(config: MetaFormerConfig) -> MetaFormerConfig:
    """The configuration with the positions of the published one, which in some repositories shift the numbers of what
    follows them."""
    assert config.architecture is not None
    published = ARCHITECTURES[config.architecture]().stages
    stages = zip(config.stages, published, strict=True)
    return dataclasses.replace(config, stages=tuple(dataclasses.replace(s, position=p.position) for s, p in stages))


def _translate(key: str, table: Mapping[str, str]) -> str:
    """The longest prefix of a key that the table knows, exchanged; a key that it does not know stays as it is."""
    words = key.split(".")
    for length in range(len(words), 0, -1):
        prefix = ".".join(words[:length])
        if prefix in table:
            return ".".join([table[prefix], *words[length:]])
    return key


def to_official(model: MetaFormer) -> dict[str, Tensor]:
    """The model's state dict under its repository's names and shapes (copies), constants included."""
    names, state = names_of(model), model.state_dict()
    official = {
        name: state[key].reshape(names.shape(name, tuple(state[key].shape))).clone()
        for key, name in official_keys(model).items()
    }
    return official | names.constants(model.config)


def to_own(model: MetaFormer, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official entries under our names, in our shapes where they hold as many numbers.

    Constants are compared and left out. What the model has no entry for gets the name that it would have.

    Raises:
        UserError: a constant of the file is not the one of the model's architecture.
    """
    names, own = names_of(model), model.state_dict()
    base = ARCHITECTURES[str(model.config.architecture)]()
    constants = names.constants(base)
    ours = {name: key for key, name in official_keys(model).items()}
    reverse = {theirs: key for key, theirs in names.table(model.config).items()}
    converted = {}
    for name, tensor in state.items():
        if name in constants:
            _check_constant(name, tensor, constants[name])
            continue
        key = ours.get(name) or _translate(name, reverse)
        fits = key in own and tuple(tensor.shape) == names.shape(name, tuple(own[key].shape))
        converted[key] = tensor.reshape(own[key].shape) if fits else tensor
    return converted


def _check_constant(name: str, tensor: Tensor, want: Tensor) -> None:
    same = tensor.shape == want.shape and torch.allclose(tensor.to(want), want, rtol=TOLERANCE, atol=0)
    if not same:
        got = Quoted(str(tensor.tolist()))
        raise expected(f"weights {name}", f"{want.tolist()}, as this architecture has it", got)


def load_official(model: MetaFormer, state: Mapping[str, Tensor]) -> LoadReport:
    """Load a state dict with official names into a model that it fits exactly.

    Raises:
        UserError: keys are missing or left over (both lists are named), or a shape differs.
    """
    names, own = names_of(model), model.state_dict()
    wanted = {name: names.shape(name, tuple(own[key].shape)) for key, name in official_keys(model).items()}
    wanted |= {name: tuple(value.shape) for name, value in names.constants(model.config).items()}
    missing, extra = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    if missing or extra:
        got = Quoted(f"missing {missing or 'none'}, left over {extra or 'none'}")
        raise expected("load_official", f"the {len(wanted)} official keys of this model", got)
    for name, shape in wanted.items():
        if tuple(state[name].shape) != shape:
            raise expected(f"load_official {name}", f"shape {shape}", Quoted(str(tuple(state[name].shape))))
    converted = to_own(model, state)
    model.load_state_dict(converted)
    report = LoadReport("a state dict", kept={k: v.numel() for k, v in converted.items()})
    report.check(own, converted)
    return report
