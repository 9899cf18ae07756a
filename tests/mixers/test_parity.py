"""Mixers and norms against numbers of the official PoolFormer modules (see tests/parity)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mixlab.mixers.attention import Attention
from mixlab.mixers.pooling import Pooling
from mixlab.norms import GroupNorm, LayerNorm
from tests.parity.fill import fill_, image

UNITS = json.loads((Path(__file__).parents[1] / "parity" / "units_poolformer.json").read_text())["units"]
OURS: dict[tuple[str, str], Any] = {
    ("Pooling", "pool_size=3"): lambda: Pooling(4),
    ("Pooling", "pool_size=5"): lambda: Pooling(4, kernel_size=5),
    ("Attention", "dim=64, head_dim=32"): lambda: Attention(64),
    ("LayerNormChannel", "num_channels=16"): lambda: LayerNorm(16),
    ("GroupNorm", "num_channels=16"): lambda: GroupNorm(16),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("key", OURS, ids=lambda k: f"{k[0]}({k[1]})")
def test_unit_equals_official(key: tuple[str, str], dtype: torch.dtype) -> None:
    unit = next(u for u in UNITS if (u["unit"], u["arguments"]) == key)
    module: nn.Module = OURS[key]()
    state = module.state_dict()
    assert {k: list(v.shape) for k, v in state.items()} == unit["state"]
    fill_(state)
    module.load_state_dict(state)
    got = module.to(dtype)(image(unit["input_shape"]).to(dtype))
    got = got[0] if isinstance(got, tuple) else got
    want = torch.tensor(unit["output"], dtype=torch.float64).reshape(unit["output_shape"])
    scale = want.abs().max().item()
    tolerance = 1e-6 * scale if dtype == torch.float64 else 20 * unit["noise"] + 1e-4 * scale
    assert (got.double() - want).abs().max().item() <= tolerance
