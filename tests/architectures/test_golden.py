"""A run's hash holds a model's name and what the user changed in it, not what the name stands for.

So a change of a published configuration, or of a part's default, must raise ``NUMERICS_VERSION``
(``mixlab/studies/run_config.py``), or finished runs would be taken for new ones. This file notices: when a test here
fails, raise the version and then put the new digest here. New names and new options are added without raising it; a
new field of the configuration, at a default that changes nothing, is the one reason to put a new digest alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import pytest

from mixlab.models import ModelConfig, list_models
from mixlab.channel_mixers import CHANNEL_MIXERS
from mixlab.embeddings import EMBEDDINGS, POSITIONS
from mixlab.heads import HEADS
from mixlab.mixers import MIXERS
from mixlab.norms import NORMS
from mixlab.registry import Registry
from mixlab.studies.run_config import NUMERICS_VERSION

VERSION = 1
MODELS = {
    "metaformer_m36": "e0df4fd40a9c",
    "metaformer_m48": "a018c6f161d8",
    "metaformer_nano": "b82d2aaf1e13",
    "metaformer_s12": "7500306f5cd2",
    "metaformer_s24": "e638c4b1c3c1",
    "metaformer_s36": "f7fda262e446",
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "token mixer/attention": {"head_dim": 32, "qkv_bias": False, "proj_bias": True},
    "token mixer/conv": {"kernel_size": 3, "dilation": 1, "bias": True},
    "token mixer/identity": {},
    "token mixer/local_attention": {
        "kernel_size": 3,
        "dilation": 1,
        "head_dim": 16,
        "qkv_bias": False,
        "proj_bias": True,
        "subtract_input": False,
        "backend": "auto",
    },
    "token mixer/pooling": {"kernel_size": 3, "subtract_input": True},
    "token mixer/sep_conv": {"kernel_size": 3, "dilation": 1, "bias": True},
    "channel mixer/mlp": {"ratio": 4.0, "act": "gelu", "bias": True, "dropout": 0.0},
    "patch embedding/conv": {"kernel_size": 3, "stride": 2, "padding": 1, "bias": True, "pre_norm": None, "norm": None},
    "position/conv": {"kernel_size": 3},
    "position/learned": {"resize": "none"},
    "norm/batch_norm": {"eps": 1e-05, "momentum": 0.1},
    "norm/group_norm": {"eps": 1e-05, "bias": True},
    "norm/layer_norm": {"eps": 1e-05, "bias": True},
    "head/linear": {"norm": "group_norm", "order": "norm_pool", "dropout": 0.0},
}
REGISTRIES: dict[str, Registry[Any]] = {
    r.kind: r for r in (MIXERS, CHANNEL_MIXERS, EMBEDDINGS, POSITIONS, NORMS, HEADS)
}


def digest(name: str) -> str:
    """Short hash of everything that a model's name stands for."""
    plain = dataclasses.asdict(ModelConfig(name=name).configuration())
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:12]


def defaults(kind: str, name: str) -> dict[str, Any]:
    """Defaults of a part's options."""
    options = REGISTRIES[kind].options(name)
    return {k: p.default for k, p in options.items() if p.default is not p.empty}


def test_version_of_the_digests() -> None:
    assert NUMERICS_VERSION == VERSION


@pytest.mark.parametrize("name", list_models())
def test_models(name: str) -> None:
    assert MODELS.get(name) == digest(name)


@pytest.mark.parametrize("part", DEFAULTS)
def test_defaults_of_parts(part: str) -> None:
    kind, name = part.split("/")
    found = defaults(kind, name)
    assert {k: found[k] for k in DEFAULTS[part]} == DEFAULTS[part]


def test_every_part_is_listed() -> None:
    assert set(DEFAULTS) == {f"{kind}/{name}" for kind, registry in REGISTRIES.items() for name in registry}
