"""MetaFormers in MONAI's FlexibleUNet: a train step in 2D and 3D."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE, FlexibleUNet
from torch import nn

import mixlab.plugins.monai as plug
from mixlab import create_model
from mixlab.architectures import ARCHITECTURES
from mixlab.errors import UserError
from mixlab.mixers.local_attention import LocalAttention
from mixlab.weights import to_official

SIZES = {2: (64, 96), 3: (32, 64, 32)}


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FLEXUNET_BACKBONE, "register_dict", dict(FLEXUNET_BACKBONE.register_dict))


def unet(backbone: str, dims: int = 2, **options: Any) -> Any:
    given = {"in_channels": 1, "out_channels": 3, "decoder_channels": (32, 24, 16, 8, 8), **options}
    return FlexibleUNet(backbone=backbone, spatial_dims=dims, **given)


def train_step(model: nn.Module, dims: int, size: tuple[int, ...]) -> None:
    logits = model.train()(torch.randn(2, 1, *size))
    assert logits.shape == (2, 3, *size)
    logits.square().mean().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("backbone", ["metaformer_s12", "metaformer_nano"])
def test_train_step(backbone: str, dims: int) -> None:
    train_step(unet(backbone, dims), dims, SIZES[dims])


@pytest.mark.parametrize("dims", [2, 3])
def test_another_mixer(dims: int) -> None:
    plug.register("local", "metaformer_s12", token_mixer="local_attention", kernel_size=3, stages="PPTT")
    model = unet("local", dims)
    assert sum(isinstance(m, LocalAttention) for m in model.encoder.modules()) == 8
    train_step(model, dims, SIZES[dims])
    plug.register("local", "metaformer_s12")  # one's own name may be given again
    assert not any(isinstance(m, LocalAttention) for m in unet("local", dims).encoder.modules())


def test_every_architecture_is_registered_with_its_channels() -> None:
    assert set(ARCHITECTURES) <= set(FLEXUNET_BACKBONE.register_dict)
    for name in ("caformer_s18", "rmt_t", "transnext_micro", "ffnet_1"):
        entry = FLEXUNET_BACKBONE.register_dict[name]
        model = entry["type"](**entry["parameter"]).eval()
        with torch.no_grad():
            maps = model(torch.zeros(1, 3, 64, 64))
        assert [m.shape[1] for m in maps] == list(entry["feature_channel"])
        assert len(maps) == entry["feature_number"] == 5
        assert [m.shape[2] for m in maps] == [32, 16, 8, 4, 2]


def test_weights(tmp_path: Path) -> None:
    torch.save(to_official(create_model("poolformer_s12")), tmp_path / "official.pth")
    plug.register("loaded", "poolformer_s12", pretrained=tmp_path / "official.pth", inflate="mean")
    assert "mean: 2D kernel to" in unet("loaded", 3).encoder.model.events[-1]["message"]


def test_stem_of_stride_two() -> None:
    plug.register("wide", "metaformer_s12", stem_stride=2)
    model = unet("wide", decoder_channels=(32, 24, 16, 8))
    train_step(model, 2, (48, 80))


def test_sizes_that_cannot_be_doubled() -> None:
    with pytest.raises(UserError, match=r"multiples of 32, got \(71, 96\), try padding to \(96, 96\)"):
        unet("metaformer_s12")(torch.zeros(1, 1, 71, 96))


def test_refused() -> None:
    with pytest.raises(UserError, match="a name that MONAI does not have, got 'resnet18'"):
        plug.register("resnet18", "metaformer_s12")
    with pytest.raises(UserError, match="unknown architecture"):
        plug.register("mine", "metaformer_s13")
    with pytest.raises(UserError, match="strides that double from map to map"):
        plug.register("mine", "metaformer_s12", stem_stride=3)
    plug.register("mine", "metaformer_s12", token_mixer={"name": "pooling", "kernel": 3})
    with pytest.raises(UserError, match="'kernel_size'"):  # a mixer is built with its model
        unet("mine")
