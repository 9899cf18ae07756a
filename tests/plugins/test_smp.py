"""MetaFormers under decoders of segmentation_models_pytorch: a train step each, odd sizes where smp takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

smp = pytest.importorskip("segmentation_models_pytorch", reason="the plug needs smp (extra smp)")

import mixlab.plugins.smp as plug  # noqa: E402
from mixlab import create_model  # noqa: E402
from mixlab.errors import UserError  # noqa: E402
from mixlab.mixers.local_attention import LocalAttention  # noqa: E402
from mixlab.weights import to_official  # noqa: E402

MIXER: dict[str, Any] = {"token_mixer": "local_attention", "kernel_size": 5, "stages": "PPTT"}
CASES = [("Unet", (64, 96)), ("Unet", (71, 97)), ("FPN", (64, 96)), ("UPerNet", (64, 96))]


def image(*size: int, channels: int = 1) -> Tensor:
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(0))


def train_step(model: nn.Module, x: Tensor) -> None:
    logits = model.train()(x)
    assert logits.shape == (2, 3, *x.shape[2:])
    logits.square().mean().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize(("name", "size"), CASES)
def test_through_timm(name: str, size: tuple[int, int]) -> None:
    model = getattr(smp, name)(
        "tu-metaformer_s12", encoder_weights=None, in_channels=1, classes=3, out_norm="group_norm", **MIXER
    )
    mixers = [m for m in model.encoder.modules() if isinstance(m, LocalAttention)]
    assert [m.kernel_size for m in mixers] == [(5, 5)] * 8
    train_step(model, image(*size))


def test_names_behind_tu() -> None:
    assert plug.NAMES["metaformer_s12"] == "metaformer_s12"
    model = smp.Unet("tu-mixlab_poolformer_s12", encoder_weights=None, classes=3)
    assert model(image(64, 64, channels=3)).shape == (2, 3, 64, 64)
    # The nano model has strides 2 to 16: one map less than smp asks for by default.
    nano = smp.Unet("tu-metaformer_nano", encoder_weights=None, encoder_depth=4, decoder_channels=(32, 16, 16, 8))
    assert nano(image(71, 97, channels=3)).shape == (2, 1, 71, 97)


@pytest.mark.parametrize(("name", "size"), CASES)
def test_under_a_name_of_ones_own(name: str, size: tuple[int, int]) -> None:
    plug.register("of_the_tests", "metaformer_s12", out_norm="group_norm", **MIXER)
    try:
        model = getattr(smp, name)("of_the_tests", encoder_weights=None, in_channels=1, classes=3)
    finally:
        del smp.encoders.encoders["of_the_tests"]
    assert sum(isinstance(m, LocalAttention) for m in model.encoder.modules()) == 8
    train_step(model, image(*size))


def test_both_ways_are_one_network() -> None:
    ours = plug.encoder("metaformer_s12", in_channels=1, **MIXER).eval()
    theirs = smp.encoders.get_encoder("tu-metaformer_s12", in_channels=1, **MIXER).eval()
    ours.model.load_state_dict(theirs.model.model.state_dict())
    assert list(ours.out_channels) == theirs.out_channels == [1, 0, 64, 128, 320, 512]
    assert ours.output_stride == theirs.output_stride == 32
    x = image(64, 96)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours(x)[0], x)


def test_weights_and_a_stem_of_stride_two(tmp_path: Path) -> None:
    torch.save(to_official(create_model("poolformer_s12")), tmp_path / "official.pth")
    options: dict[str, Any] = {"pretrained": tmp_path / "official.pth", "token_mixer": "conv", "init": "pooling"}
    made = plug.encoder("poolformer_s12", in_channels=1, **options)
    assert "conv starts as" in made.model.events[-1]["message"]
    wide = plug.encoder("metaformer_s12", depth=4, stem_stride=2)
    assert wide.out_channels == [3, 64, 128, 320, 512]
    assert [tuple(m.shape[2:]) for m in wide(image(64, 96, channels=3))] == [
        (64, 96), (32, 48), (16, 24), (8, 12), (4, 6)
    ]  # fmt: skip
    short = plug.encoder("metaformer_s12", depth=3)
    assert [m.shape[1] for m in short(image(64, 64, channels=3))] == [3, 0, 64, 128]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"depth": 1}, "depth: expected one of 2, 3, 4, 5"),
        ({"stem_stride": 3}, "strides that are powers of two"),
        ({"output_stride": 16}, "output_stride: expected 32"),
        ({"token_mixer": "poling"}, "'pooling'"),
        ({"architecture": "resnet18"}, "unknown architecture"),
    ],
)
def test_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        plug.Encoder(**{"architecture": "metaformer_s12", **options})


def test_names_that_are_taken() -> None:
    with pytest.raises(UserError, match="a name that smp does not have, got 'resnet18'"):
        plug.register("resnet18", "metaformer_s12")
    with pytest.raises(UserError, match="a name that smp does not have"):
        plug.register("tu-mine", "metaformer_s12")
    with pytest.raises(UserError, match="unknown architecture"):
        plug.register("mine", "metaformer_s13")
