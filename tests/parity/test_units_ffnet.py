"""FFNet's parts against the official ones, in the training form and fused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from mixlab.channel_mixers.conv_mlp import ConvMLP
from mixlab.embeddings.rep_downsample import RepDownsample
from mixlab.metaformer import StageConfig
from mixlab.metaformer.block import Block
from mixlab.mixers.ffnified_attention import FFNifiedAttention
from mixlab.registry import Part
from mixlab.reparam import NormSkip, RepDepthwise
from tests.parity.check import DTYPES, compare_unit, fill_unit, read, unit_input

Names = dict[str, str]


def _both(ours: str, theirs: str) -> Names:
    """Two convolutions side by side, each with its norm."""
    pairs = {"wide.conv": "conv.c", "wide.norm": "conv.bn", "narrow.conv": "conv1.c", "narrow.norm": "conv1.bn"}
    return {f"{ours}{a}": f"{theirs}{b}" for a, b in pairs.items()}


def _one(ours: str, theirs: str) -> Names:
    return {f"{ours}.conv": f"{theirs}.c", f"{ours}.norm": f"{theirs}.bn"}


def _below(names: Names, ours: str, theirs: str) -> Names:
    return {f"{ours}.{a}": f"{theirs}.{b}" for a, b in names.items()}


TOKEN_PLAIN = {**_one("query", "fc"), "key": "conv1", "value": "conv2"}
TOKEN = {**_one("query", "fc"), **_both("key.", "conv1."), **_both("value.", "conv2.")}
CHANNEL_PLAIN = {**_one("conv", "conv"), "mlp.fc1": "fc1", "mlp.fc2": "fc2"}
CHANNEL = {**_both("conv.", "conv."), "mlp.fc1": "fc1", "mlp.fc2": "fc2"}
SKIP = {"norm": "conv.bn", "conv": "conv.c"}
BLOCK = {
    **_below(TOKEN, "token_mixer", "token_mixer.0.main"),
    **_below(CHANNEL, "channel_mixer", "channel_mixer.main"),
    "layer_scale1": "token_mixer.0.layer_scale",
    "layer_scale2": "channel_mixer.layer_scale",
}
DOWN = {**_both("conv.", "proj.0."), **_below(SKIP, "skip", "proj.1")}


def _block() -> nn.Module:
    config = StageConfig(
        depth=1,
        width=16,
        embedding=Part("conv"),
        mixers=(Part("ffnified_attention"),),
        channel_mixers=(Part("conv_mlp"),),
        norm=None,
        layer_scale=1e-6,
    )
    return Block(config, 0, 0.0, 2, None, None)


OURS: dict[str, tuple[Callable[[], nn.Module], Names]] = {
    "Token_Mixer(dim=16, ks1=3, ks2=3)": (
        lambda: FFNifiedAttention(16, kernel_size=3, reparameterise=False),
        TOKEN_PLAIN,
    ),
    "Token_Mixer(dim=16, ks1=7, ks2=7)": (lambda: FFNifiedAttention(16), TOKEN),
    "Channel_Mixer(dim=16, ks=3, expansion_ratio=3)": (
        lambda: ConvMLP(16, kernel_size=3, reparameterise=False),
        CHANNEL_PLAIN,
    ),
    "Channel_Mixer(dim=16, ks=7, expansion_ratio=3)": (lambda: ConvMLP(16), CHANNEL),
    "RepVGGDW(in_dim=16, out_dim=32, ks=7, stride=2)": (
        lambda: RepDepthwise(16, 32, 7, stride=2),
        _both("", ""),
    ),
    "Conv2d_BN_skip(dim=16)": (lambda: NormSkip(16), SKIP),
    "PatchMerging(dim=16, out_dim=32)": (lambda: RepDownsample(16, 32), DOWN),
    "FFBlock(dim=16, kernel_size=7, use_se=False, use_gelu=True, expansion_ratio=3, ks1=7, ks2=7, "
    "use_layer_scale=True)": (_block, BLOCK),
}
UNITS: dict[str, dict[str, Any]] = {f"{u['unit']}({u['arguments']})": u for u in read("units_ffnet")["units"]}


def fused(module: nn.Module) -> nn.Module:
    """The module with every part in its deployment form."""
    root = nn.Sequential(module)
    for parent in list(root.modules()):
        for name, child in parent.named_children():
            if callable(getattr(child, "fuse", None)):
                setattr(parent, name, child.fuse())  # type: ignore[operator]
    return root[0]


def test_every_unit_is_compared() -> None:
    assert OURS.keys() == UNITS.keys()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", ["training form", "fused"])
@pytest.mark.parametrize("key", OURS)
def test_unit_equals_official(key: str, form: str, dtype: torch.dtype) -> None:
    make, names = OURS[key]
    given = UNITS[key]
    module = fill_unit(make(), given, names).to(dtype)
    if form == "fused":
        module = fused(module)
        assert not any(isinstance(m, nn.BatchNorm2d) for m in module.modules())
    got = module(unit_input(given, dtype))
    compare_unit(given, got[0] if isinstance(got, tuple) else got, dtype)
