"""Packaged implementations as second oracles, with random parameters, in float64."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mixlab import create_model
from mixlab.weights import to_official
from mixlab.weights.fill import image
from tests.parity.check import filled

SHAPE = (2, 3, 160, 96)
SIZES = {
    "s12": ([2, 2, 6, 2], [64, 128, 320, 512]),
    "s24": ([4, 4, 12, 4], [64, 128, 320, 512]),
    "s36": ([6, 6, 18, 6], [64, 128, 320, 512]),
    "m36": ([6, 6, 18, 6], [96, 192, 384, 768]),
    "m48": ([8, 8, 24, 8], [96, 192, 384, 768]),
}


def timm_metaformer() -> Any:
    """timm's module, which warns of nothing that concerns us when it is imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("timm.models.metaformer", reason="the oracle needs timm (extra timm)")


@pytest.mark.parametrize(
    "size", ["s12", *(pytest.param(s, marks=pytest.mark.slow) for s in ("s24", "s36", "m36", "m48"))]
)
def test_poolformer_equals_transformers(size: str) -> None:
    transformers = pytest.importorskip("transformers", reason="the oracle needs transformers (extra dev)")
    depths, widths = SIZES[size]
    config = transformers.PoolFormerConfig(depths=depths, hidden_sizes=widths, num_labels=1000)
    theirs = transformers.PoolFormerForImageClassification(config).eval()
    ours = filled(create_model(f"poolformer_{size}"))
    theirs.load_state_dict({_transformers_key(k): v for k, v in to_official(ours).items()})
    x = image(SHAPE).double()
    with torch.no_grad():
        torch.testing.assert_close(ours.double()(x), theirs.double()(x).logits, atol=1e-9, rtol=1e-9)


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


def theirs_with(model: Any, state: dict[str, Tensor]) -> Any:
    """timm's model with official weights, through timm's own conversion."""
    model.load_state_dict(timm_metaformer().checkpoint_filter_fn(dict(state), model))
    for name, module in model.named_modules():
        if name == "head.fc.norm":  # timm has 1e-6 there, the official code 1e-5
            module.eps = 1e-5
    return model.eval()


BASELINES = [f"{f}_{s}" for f in ("convformer", "caformer") for s in ("s18", "s36", "m36", "b36")]
BASELINES += [f"poolformerv2_{s}" for s in SIZES]
FAST = ("convformer_s18", "caformer_s18", "poolformerv2_s12")


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in BASELINES])
def test_baselines_equal_timm(name: str) -> None:
    ours = filled(create_model(name))
    theirs = theirs_with(getattr(timm_metaformer(), name)(), to_official(ours))
    x = image(SHAPE).double()
    with torch.no_grad():
        torch.testing.assert_close(ours.double()(x), theirs.double()(x), atol=1e-9, rtol=1e-9)


def test_identityformer_equals_timms_frame_with_identity() -> None:
    timm = timm_metaformer()
    depths, widths = SIZES["s12"]
    ours = filled(create_model("identityformer_s12"))
    frame = timm.MetaFormer(
        depths=depths, dims=widths, token_mixers=nn.Identity, norm_layers=timm.GroupNorm1NoBias, use_mlp_head=False
    )
    theirs, x = theirs_with(frame, to_official(ours)), image(SHAPE).double()
    with torch.no_grad():
        torch.testing.assert_close(ours.double()(x), theirs.double()(x), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(
    "size", ["s12", *(pytest.param(s, marks=pytest.mark.slow) for s in ("s24", "s36", "m36", "m48"))]
)
def test_poolformer_features_equal_timm(size: str) -> None:
    """Features only: timm's head takes the mean first and normalises then."""
    ours = filled(create_model(f"poolformer_{size}"))
    state = to_official(ours)
    model = getattr(timm_metaformer(), f"poolformer_{size}")()
    x = image(SHAPE).double()
    with torch.no_grad():
        got, want = ours.double().forward_features(x), theirs_with(model, state).double().forward_features(x)
    torch.testing.assert_close(got, want, atol=1e-9, rtol=1e-9)
