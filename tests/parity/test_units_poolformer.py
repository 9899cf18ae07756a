"""PoolFormer's modules, and those of its hybrids."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mixlab.embeddings.positions import LearnedPosition
from mixlab.metaformer import Block, StageConfig
from mixlab.mixers.attention import Attention
from mixlab.mixers.pooling import Pooling
from mixlab.mixers.spatial_fc import SpatialFC
from mixlab.norms import GroupNorm, LayerNorm
from mixlab.registry import Part
from tests.parity.check import DTYPES, compare_unit, fill_unit, read, unit, unit_input

BLOCK = {"layer_scale1": "layer_scale_1", "layer_scale2": "layer_scale_2", "channel_mixer": "mlp"}


def block(dim: int, mixer: str, norm: str) -> Block:
    """The block of a stage with that mixer, with LayerScale."""
    config = StageConfig(
        depth=1, width=dim, embedding=Part("conv"), mixers=(Part(mixer),), norm=Part(norm), layer_scale=1e-5
    )
    return Block(config, 0, 0.0, 2, None, None)


OURS: dict[tuple[str, str], tuple[Any, dict[str, str]]] = {
    ("Pooling", "pool_size=3"): (lambda: Pooling(4), {}),
    ("Pooling", "pool_size=5"): (lambda: Pooling(4, kernel_size=5), {}),
    ("Attention", "dim=64, head_dim=32"): (lambda: Attention(64), {}),
    ("SpatialFc", "spatial_shape=[9, 11]"): (lambda: SpatialFC(4, grid_size=(9, 11)), {}),
    ("AddPositionEmb", "dim=4, spatial_shape=[9, 11]"): (
        lambda: LearnedPosition(4, grid_size=(9, 11)),
        {"embedding": "pos_embed"},
    ),
    ("LayerNormChannel", "num_channels=16"): (lambda: LayerNorm(16), {}),
    ("GroupNorm", "num_channels=16"): (lambda: GroupNorm(16), {}),
    ("PoolFormerBlock", "dim=16"): (lambda: block(16, "pooling", "group_norm"), BLOCK),
    ("MetaFormerBlock", "dim=64, token_mixer=Attention"): (lambda: block(64, "attention", "layer_norm"), BLOCK),
}


def test_every_unit_is_compared() -> None:
    assert {(u["unit"], u["arguments"]) for u in read("units_poolformer")["units"]} == set(OURS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("key", OURS, ids=lambda k: f"{k[0]}({k[1]})")
def test_unit_equals_official(key: tuple[str, str], dtype: torch.dtype) -> None:
    given = unit("poolformer", *key)
    make, names = OURS[key]
    module = fill_unit(make(), given, names).to(dtype)
    x = unit_input(given, dtype)
    got = module(x)
    got = got[0] if isinstance(got, tuple) else got
    compare_unit(given, x + got if key[0] == "AddPositionEmb" else got, dtype)
