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

from mixlab.architectures import ARCHITECTURES
from mixlab.channel_mixers import CHANNEL_MIXERS
from mixlab.embeddings import EMBEDDINGS, POSITIONS
from mixlab.heads import DECODERS, HEADS
from mixlab.mixers import MIXERS
from mixlab.models import ModelConfig
from mixlab.norms import NORMS
from mixlab.registry import Registry
from mixlab.studies.run_config import NUMERICS_VERSION

VERSION = 2
MODELS = {
    "caformer_b36": "7aaea1819973",
    "caformer_b36_384": "a5a0c944ef24",
    "caformer_m36": "ed601f492a15",
    "caformer_m36_384": "d845065564f1",
    "caformer_s18": "1553e7f046fc",
    "caformer_s18_384": "bc9e2d01b937",
    "caformer_s36": "17b5c73e0b9f",
    "caformer_s36_384": "a14451d339ca",
    "convformer_b36": "6fe576f05570",
    "convformer_b36_384": "cad4dd1c104c",
    "convformer_m36": "94fa7d018ab8",
    "convformer_m36_384": "292c2169b511",
    "convformer_s18": "2f36a55985e6",
    "convformer_s18_384": "2fa734683899",
    "convformer_s36": "389fcb165b2a",
    "convformer_s36_384": "d095c2a38dcb",
    "ffnet_1": "f955a45907fc",
    "ffnet_2": "97c1b05937ec",
    "ffnet_3": "aa9d59b2f231",
    "ffnet_4": "1a88ee600b09",
    "identityformer_m36": "d83776840a1b",
    "identityformer_m48": "a15e51841ea0",
    "identityformer_s12": "50e3fe40bf44",
    "identityformer_s24": "5451d29f8216",
    "identityformer_s36": "f22a5947e9e5",
    "metaformer_id_s12": "a0311c9dd0e0",
    "metaformer_m36": "7bad3db49766",
    "metaformer_m48": "38f4eef846f1",
    "metaformer_nano": "35384456b0dd",
    "metaformer_ppaa_s12_224": "1a8dad5b0c67",
    "metaformer_ppff_s12_224": "a98c74c49aeb",
    "metaformer_pppa_s12_224": "aca4f974df33",
    "metaformer_pppf_s12_224": "0ab90abc92f3",
    "metaformer_s12": "dcfcba778622",
    "metaformer_s24": "cc8befc54c8c",
    "metaformer_s36": "58dc9a121849",
    "poolformer_m36": "e4bea82d5535",
    "poolformer_m48": "ea80f6f4b186",
    "poolformer_s12": "240218c1d0b7",
    "poolformer_s24": "cbcafb2c8c47",
    "poolformer_s36": "4c533e6d8a72",
    "poolformerv2_m36": "90c721e0c482",
    "poolformerv2_m48": "5a31b3ec094c",
    "poolformerv2_s12": "f4607b239d76",
    "poolformerv2_s24": "79f377cb1050",
    "poolformerv2_s36": "47502cff49f0",
    "randformer_m36": "7def00b4101b",
    "randformer_m48": "855d90acb447",
    "randformer_s12": "1bacae05cd0a",
    "randformer_s24": "ac33a196284e",
    "randformer_s36": "e972fd8f8ada",
    "rmt_b": "b1acdfa9cf87",
    "rmt_b_tl": "92c93c7feed4",
    "rmt_l": "e42ecee16a84",
    "rmt_l_tl": "3914e83d2186",
    "rmt_s": "b4c3e9b9e8cc",
    "rmt_s_tl": "715ff4fd5ee1",
    "rmt_t": "232b49502954",
    "transnext_base": "4022fb6a0747",
    "transnext_base_384": "a80b3129d82e",
    "transnext_micro": "b47601a10717",
    "transnext_micro_AAAA": "317d2d395b7b",
    "transnext_small": "6c90f8bfbd60",
    "transnext_small_384": "ddb534c9cb23",
    "transnext_tiny": "13e3dda1a60e",
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "token mixer/aggregated_attention": {
        "kernel_size": 3,
        "head_dim": 32,
        "sr_ratio": 2,
        "pool_size": None,
        "pretrain_size": None,
        "qkv_bias": True,
        "query_embedding": True,
        "learnable_tokens": True,
        "backend": "auto",
    },
    "token mixer/attention": {"head_dim": 32, "qkv_bias": False, "proj_bias": True},
    "token mixer/conv": {"kernel_size": 3, "dilation": 1, "bias": True},
    "token mixer/cosine_attention": {"head_dim": 32, "pretrain_size": None, "qkv_bias": True},
    "token mixer/ffnified_attention": {"kernel_size": 7, "reparameterise": True},
    "token mixer/identity": {},
    "token mixer/inverted_sep_conv": {"kernel_size": 7, "expansion": 2.0, "act": "star_relu", "bias": False},
    "token mixer/local_attention": {
        "kernel_size": 3,
        "dilation": 1,
        "head_dim": 16,
        "qkv_bias": False,
        "proj_bias": True,
        "subtract_input": False,
        "border": "clip",
        "slopes": False,
        "relative_bias": False,
        "qk_norm": False,
        "softcap": None,
        "backend": "auto",
    },
    "token mixer/manhattan_attention": {
        "head_dim": 16,
        "decomposed": True,
        "decay_start": 2.0,
        "decay_range": 4.0,
        "lepe_kernel": 5,
        "qkv_bias": True,
    },
    "token mixer/pooling": {"kernel_size": 3, "subtract_input": True},
    "token mixer/random_mixing": {},
    "token mixer/sep_conv": {"kernel_size": 3, "dilation": 1, "bias": True},
    "token mixer/spatial_fc": {},
    "channel mixer/conv_glu": {"ratio": 8.0, "kernel_size": 3, "dropout": 0.0},
    "channel mixer/conv_mlp": {"kernel_size": 7, "ratio": 3.0, "reparameterise": True, "act": "gelu", "dropout": 0.0},
    "channel mixer/depthwise_mlp": {"ratio": 4.0, "kernel_size": 3, "act": "gelu", "dropout": 0.0},
    "channel mixer/mlp": {"ratio": 4.0, "act": "gelu", "bias": True, "dropout": 0.0},
    "patch embedding/conv": {"kernel_size": 3, "stride": 2, "padding": 1, "bias": True, "pre_norm": None, "norm": None},
    "patch embedding/conv_stack": {"hidden": (64,), "strides": (2, 2), "kernel_size": 3, "bias": True, "act": "gelu"},
    "patch embedding/coord_mlp": {"stride": 2, "hidden": 16},
    "patch embedding/coord_mlp+conv": {
        "hidden": 16,
        "kernel_size": 3,
        "stride": 2,
        "padding": 1,
        "bias": True,
        "pre_norm": None,
        "norm": None,
    },
    "patch embedding/non_overlap": {"stride": 2, "bias": True, "pre_norm": None, "norm": None},
    "patch embedding/none": {"stride": 2},
    "patch embedding/overlap": {"stride": 2, "bias": True, "pre_norm": None, "norm": None},
    "patch embedding/rep_downsample": {"kernel_size": 7, "stride": 2},
    "position/conv": {"kernel_size": 3},
    "position/coord_mlp": {"hidden": 16},
    "position/learned": {"resize": "none"},
    "norm/batch_norm": {"eps": 1e-05, "momentum": 0.1},
    "norm/group_norm": {"eps": 1e-05, "bias": True},
    "norm/layer_norm": {"eps": 1e-05, "bias": True},
    "head/linear": {"norm": "group_norm", "order": "norm_pool", "pool": "avg", "dropout": 0.0},
    "head/mlp": {
        "norm": "layer_norm",
        "ratio": 4.0,
        "act": "squared_relu",
        "eps": 1e-05,
        "pool": "avg",
        "dropout": 0.0,
    },
    "decoder/fcn": {"skips": 2, "dropout": 0.0},
    "decoder/segformer": {"width": 256, "norm": "group_norm", "act": "gelu", "dropout": 0.0},
    "decoder/unet": {
        "channels": None,
        "top": (),
        "kernel_size": 3,
        "norm": "group_norm",
        "act": "relu",
        "dropout": 0.0,
    },
    "head/projected": {"features": 1024, "token_labels": False, "pool": "avg", "dropout": 0.0},
}
REGISTRIES: dict[str, Registry[Any]] = {
    r.kind: r for r in (MIXERS, CHANNEL_MIXERS, EMBEDDINGS, POSITIONS, NORMS, HEADS, DECODERS)
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


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_models(name: str) -> None:
    assert MODELS.get(name) == digest(name)


@pytest.mark.parametrize("part", DEFAULTS)
def test_defaults_of_parts(part: str) -> None:
    kind, name = part.split("/")
    found = defaults(kind, name)
    assert {k: found[k] for k in DEFAULTS[part]} == DEFAULTS[part]


def test_every_part_is_listed() -> None:
    assert set(DEFAULTS) == {f"{kind}/{name}" for kind, registry in REGISTRIES.items() for name in registry}
