"""Parts of RMT against the official modules; float64 tells an epsilon, or an angle's last bit, apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from mixlab.channel_mixers import CHANNEL_MIXERS
from mixlab.embeddings import EMBEDDINGS
from mixlab.metaformer import StageConfig
from mixlab.metaformer.block import Block
from mixlab.mixers import MIXERS
from mixlab.registry import Part
from tests.parity.check import DTYPES, compare_unit, fill_unit, read, unit_input

UNITS = {u["unit"]: u for u in read("units_rmt")["units"]}
MIXER = Part("manhattan_attention", {"head_dim": 4, "decay_start": 2, "decay_range": 6})
MLP = Part("depthwise_mlp", {"ratio": 3.0})


def block() -> nn.Module:
    config = StageConfig(
        depth=1,
        width=16,
        embedding=Part("conv"),
        mixers=(MIXER,),
        channel_mixers=(MLP,),
        norm=Part("layer_norm", {"eps": 1e-6}),
        block_position=Part("conv"),
        layer_scale=1e-6,
    )
    return Block(config, 0, 0.0, 2, None, None)


def stem() -> nn.Module:
    return EMBEDDINGS.build(Part("conv_stack", {"hidden": (8, 8, 16), "strides": (2, 1, 2, 1)}), 3, 16)


RETENTION = {"lepe": "lepe.conv"}
MADE: dict[str, tuple[Any, dict[str, str]]] = {
    "VisionRetentionChunk": (lambda: MIXERS.build(MIXER.with_options(decay_range=4), 16), RETENTION),
    "VisionRetentionAll": (lambda: MIXERS.build(MIXER.with_options(decomposed=False), 16), RETENTION),
    "FeedForwardNetwork": (lambda: CHANNEL_MIXERS.build(MLP, 16), {"conv": "dwconv.conv"}),
    "RetBlock": (
        block,
        {
            "position": "pos",
            "norm1": "retention_layer_norm",
            "norm2": "final_layer_norm",
            "token_mixer": "retention",
            "token_mixer.lepe": "retention.lepe.conv",
            "channel_mixer": "ffn",
            "channel_mixer.conv": "ffn.dwconv.conv",
            "layer_scale1": "gamma_1",
            "layer_scale2": "gamma_2",
        },
    ),
    "PatchMerging": (lambda: EMBEDDINGS.build(Part("conv", {"norm": "batch_norm"}), 16, 32), {"proj": "reduction"}),
    "PatchEmbed": (
        stem,
        {
            f"layers.{i}.{part}": f"proj.{3 * i + offset}"
            for i in range(4)
            for offset, part in enumerate(("conv", "norm"))
        },
    ),
}


def test_every_unit_is_here() -> None:
    assert set(UNITS) == set(MADE)
    assert len(UNITS) == len(read("units_rmt")["units"])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MADE)
def test_unit(name: str, dtype: torch.dtype) -> None:
    make, names = MADE[name]
    given = UNITS[name]
    module = fill_unit(make(), given, names).to(dtype)
    out = module(unit_input(given, dtype))
    compare_unit(given, out[0] if isinstance(out, tuple) else out, dtype)
