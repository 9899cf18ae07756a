"""TransNeXt's attentions, gated channel mixer and patches against the official implementations."""

from __future__ import annotations

import pytest
import torch

from mixlab.channel_mixers.conv_glu import ConvGLU
from mixlab.embeddings.conv import ConvEmbedding
from mixlab.mixers.aggregated_attention import AggregatedAttention
from mixlab.mixers.base import Mixer
from mixlab.mixers.cosine_attention import CosineAttention
from tests.parity.check import DTYPES, compare_unit, fill_unit, read, unit_input

UNITS = read("units_transnext")["units"]
BIAS = {"cpb.fc1": "cpb_fc1", "cpb.fc2": "cpb_fc2"}
AGGREGATED = {
    "dim=16, input_resolution=(9, 11), num_heads=2, window_size=3, sr_ratio=2, fixed_pool_size=None; "
    "pretrain_size=(9, 11)": ((9, 11), {"head_dim": 8, "sr_ratio": 2}),
    "dim=16, input_resolution=(8, 12), num_heads=4, window_size=3, sr_ratio=4, fixed_pool_size=None; "
    "pretrain_size=(7, 7)": ((8, 12), {"head_dim": 4, "sr_ratio": 4, "pretrain_size": 7}),
    "dim=16, input_resolution=(9, 11), num_heads=2, window_size=5, sr_ratio=2, fixed_pool_size=None; "
    "pretrain_size=(14, 14)": ((9, 11), {"head_dim": 8, "sr_ratio": 2, "kernel_size": 5, "pretrain_size": (14, 14)}),
    "dim=16, input_resolution=(8, 12), num_heads=2, window_size=3, sr_ratio=2, fixed_pool_size=3; "
    "pretrain_size=(8, 12)": ((8, 12), {"head_dim": 8, "sr_ratio": 2, "pool_size": 3}),
}
COVERED = {"AggregatedAttention": len(AGGREGATED), "Attention": 1, "ConvolutionalGLU": 1, "OverlapPatchEmbed": 1}


def find(name: str) -> list[dict[str, object]]:
    return [u for u in UNITS if u["unit"] == name]


def test_every_unit_is_compared() -> None:
    assert {n: len(find(n)) for n in {u["unit"] for u in UNITS}} == COVERED


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("arguments", AGGREGATED)
def test_aggregated_attention(arguments: str, backend: str, dtype: torch.dtype) -> None:
    given = next(u for u in find("AggregatedAttention") if u["arguments"] == arguments)
    grid, options = AGGREGATED[arguments]
    mixer: Mixer = AggregatedAttention(16, backend=backend, **options)  # type: ignore[arg-type]
    filled = fill_unit(mixer, given, BIAS).to(dtype)
    compare_unit(given, filled(unit_input(given, dtype, grid)), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_cosine_attention(dtype: torch.dtype) -> None:
    (given,) = find("Attention")
    mixer = fill_unit(CosineAttention(16, head_dim=4, pretrain_size=7), given, BIAS).to(dtype)
    compare_unit(given, mixer(unit_input(given, dtype, (5, 6))), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_conv_glu(dtype: torch.dtype) -> None:
    (given,) = find("ConvolutionalGLU")
    mixer = fill_unit(ConvGLU(16, ratio=4), given, {"conv": "dwconv.dwconv"}).to(dtype)
    compare_unit(given, mixer(unit_input(given, dtype, (9, 11))), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_patches(dtype: torch.dtype) -> None:
    (given,) = find("OverlapPatchEmbed")
    patches = ConvEmbedding(3, 16, kernel_size=7, stride=4, padding=3, norm={"name": "layer_norm", "eps": 1e-5})
    compare_unit(given, fill_unit(patches, given).to(dtype)(unit_input(given, dtype)), dtype)
