"""Modules of the MetaFormer baselines."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mixlab.activations import StarReLU
from mixlab.architectures.baselines import CHANNEL_NORM
from mixlab.channel_mixers.mlp import MLP
from mixlab.embeddings.conv import ConvEmbedding
from mixlab.heads.mlp import MLPHead
from mixlab.metaformer import Block, StageConfig
from mixlab.mixers.attention import Attention
from mixlab.mixers.inverted_sep_conv import InvertedSepConv
from mixlab.mixers.pooling import Pooling
from mixlab.mixers.random_mixing import RandomMixing
from mixlab.norms import GroupNorm, LayerNorm
from mixlab.registry import Part
from tests.parity.check import DTYPES, compare_unit, fill_unit, read, unit_input

SEP_CONV = {"expand": "pwconv1", "act": "act1", "conv": "dwconv", "reduce": "pwconv2"}
BLOCK = {
    **{f"token_mixer.{ours}": f"token_mixer.{theirs}" for ours, theirs in SEP_CONV.items()},
    **{f"{kind}_scale{i}": f"{kind}_scale{i}.scale" for kind in ("layer", "res") for i in (1, 2)},
    "channel_mixer": "mlp",
}


def block() -> Block:
    mlp = Part("mlp", {"act": "star_relu", "bias": False})
    config = StageConfig(
        depth=1, width=16, embedding=Part("conv"), mixers=(Part("inverted_sep_conv"),), channel_mixers=(mlp,),
        norm=CHANNEL_NORM, layer_scale=1.0, res_scale=True,
    )  # fmt: skip
    return Block(config, 0, 0.0, 2, None, None)


OURS: dict[str, tuple[Any, dict[str, str]]] = {
    "Pooling": (lambda: Pooling(4), {}),
    "SepConv": (lambda: InvertedSepConv(16), SEP_CONV),
    "Attention": (lambda: Attention(64, proj_bias=False), {}),
    "RandomMixing": (lambda: RandomMixing(4, grid_size=(9, 11)), {}),
    "LayerNormGeneral": (lambda: GroupNorm(16, eps=1e-6, bias=False), {}),
    "LayerNormWithoutBias": (lambda: LayerNorm(16, eps=1e-6, bias=False), {}),
    "StarReLU": (StarReLU, {}),
    "Mlp": (lambda: MLP(16, act="star_relu", bias=False), {}),
    "MlpHead": (lambda: MLPHead(16, 10, norm=None), {"hidden_norm": "norm"}),
    "Downsampling": (lambda: ConvEmbedding(16, 32, pre_norm=CHANNEL_NORM.to_plain()), {"proj": "conv"}),
    "MetaFormerBlock": (block, BLOCK),
}


def test_every_unit_is_compared() -> None:
    assert [u["unit"] for u in read("units_metaformer")["units"]] == list(OURS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OURS)
def test_unit_equals_official(name: str, dtype: torch.dtype) -> None:
    given = next(u for u in read("units_metaformer")["units"] if u["unit"] == name)
    make, names = OURS[name]
    module = fill_unit(make(), given, names).to(dtype)
    x = unit_input(given, dtype)
    got: Tensor | tuple[Tensor, ...] = module(x[:, :, None, None] if given["layout"] == "BC" else x)
    compare_unit(given, got[0] if isinstance(got, tuple) else got, dtype)
