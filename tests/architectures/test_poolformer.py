"""PoolFormer-S12 from the one MetaFormer: parameters, official names, official numbers, and a second oracle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mixlab import create_model
from mixlab.errors import UserError
from mixlab.metaformer import MetaFormer
from mixlab.weights import load_official, to_official
from tests.parity.fill import fill_, image, key_digest

REFERENCE = json.loads((Path(__file__).parents[1] / "parity" / "poolformer_s12.json").read_text())
PARAMETERS = {
    "metaformer_s12": 11_915_176,
    "metaformer_s24": 21_388_968,
    "metaformer_s36": 30_862_760,
    "metaformer_m36": 56_172_520,
    "metaformer_m48": 73_473_448,
}
KEYS = {
    "metaformer_s12": 132,
    "metaformer_s24": 252,
    "metaformer_s36": 372,
    "metaformer_m36": 372,
    "metaformer_m48": 492,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_and_keys(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    assert model.cost((224, 224)).parameters == PARAMETERS[name]
    assert len(model.state_dict()) == KEYS[name]


def test_macs_agree_with_the_published_figure() -> None:
    assert create_model("metaformer_s12").cost((224, 224)).macs_needed / 1e9 == pytest.approx(1.8, abs=0.05)


def test_official_names() -> None:
    state = to_official(create_model("metaformer_s12"))
    assert len(state) == REFERENCE["n_state_keys"]
    assert key_digest(state) == REFERENCE["keys_sha256"]


def test_every_official_key_must_be_accounted_for() -> None:
    model = create_model("metaformer_s12")
    state = to_official(model)
    state["head.scale"] = state.pop("head.bias")
    with pytest.raises(UserError, match=r"missing \['head.bias'\], left over \['head.scale'\]"):
        load_official(model, state)
    state = to_official(model)
    state["network.0.0.mlp.fc1.weight"] = state["network.0.0.mlp.fc1.weight"].transpose(0, 1)
    with pytest.raises(UserError, match=r"fc1.weight: expected shape \(256, 64, 1, 1\), got \(64, 256, 1, 1\)"):
        load_official(model, state)
    state = to_official(model)
    state["head.bias"] = state["head.bias"][:10]
    with pytest.raises(UserError, match=r"head.bias: expected shape \(1000,\), got \(10,\)"):
        load_official(model, state)


def test_equals_transformers() -> None:
    transformers = pytest.importorskip("transformers", reason="the second oracle needs transformers (extra dev)")
    config = transformers.PoolFormerConfig(
        depths=[2, 2, 6, 2], hidden_sizes=[64, 128, 320, 512], num_labels=1000, layer_scale_init_value=1e-5
    )
    theirs = transformers.PoolFormerForImageClassification(config).eval()
    theirs.load_state_dict({_transformers_key(k): v for k, v in to_official(poolformer_s12()).items()})
    x = image((2, 3, 160, 96))
    with torch.no_grad():
        torch.testing.assert_close(poolformer_s12()(x), theirs(x).logits, atol=1e-5, rtol=1e-5)


def _transformers_key(key: str) -> str:
    head, _, rest = key.partition(".")
    if head == "patch_embed":
        return f"poolformer.encoder.patch_embeddings.0.projection.{rest.removeprefix('proj.')}"
    if head == "network" and ".proj." in key:
        index = (int(rest.split(".")[0]) + 1) // 2
        return f"poolformer.encoder.patch_embeddings.{index}.projection.{rest.split('.')[-1]}"
    if head == "network":
        slot, block, tail = rest.split(".", 2)
        for ours, other in (("norm1", "before_norm"), ("norm2", "after_norm"), ("mlp.fc", "output.conv")):
            tail = tail.replace(ours, other)
        return f"poolformer.encoder.block.{int(slot) // 2}.{block}.{tail}"
    return f"norm.{rest}" if head == "norm" else f"classifier.{rest}"
