"""Weights by the options of ``create_model``: loaded, inflated, mixers exchanged, in one report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mixlab import create_model
from mixlab.embeddings import GlobalTokens
from mixlab.errors import UserError
from mixlab.metaformer import MetaFormer
from mixlab.models import ModelConfig
from mixlab.registry import Part
from mixlab.weights import to_official

NAME = "poolformer_s12"
PPAA = "metaformer_ppaa_s12_224"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Official files with random weights and large scales, so that every branch counts."""
    folder, made = tmp_path_factory.mktemp("official"), {}
    for name in (NAME, PPAA, "convformer_s18"):
        torch.manual_seed(3)
        model = create_model(name, layer_scale=0.5 if "s12" in name else None)
        made[name] = folder / f"{name}.pth"
        torch.save(to_official(model), made[name])
    return made


def images(*size: int, channels: int = 3) -> Tensor:
    return torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(1))


def features(model: MetaFormer, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval().forward_features(x)


def report_of(model: MetaFormer) -> str:
    said = [e["message"] for e in model.events if e["kind"] == "weights"]
    assert len(said) == 1
    return said[0]


def test_local_attention_starts_as_the_published_pooling(files: dict[str, Path]) -> None:
    options: dict[str, Any] = {"pretrained": files[NAME], "num_classes": 4}
    model = create_model(NAME, token_mixer="local_attention", stages="PPTT", init="pooling", **options)
    x = images(64, 64)
    torch.testing.assert_close(features(model, x), features(create_model(NAME, **options), x), atol=1e-4, rtol=1e-4)
    report = report_of(model)
    assert "130 kept, 0 adapted, 26 new, 2 dropped" in report  # 8 blocks of 3 entries, and the classifier
    assert "new head.fc.weight: 4 classes" in report
    assert "local_attention acts as pooling: the mean of its 3x3 window minus the position" in report
    entries = ("token_mixer.qkv.weight", "token_mixer.proj.weight", "token_mixer.proj.bias")
    want = {f"stages.{s}.blocks.{b}.{e}" for s, depth in ((2, 6), (3, 2)) for b in range(depth) for e in entries}
    assert model.new_parameters == want | {"head.fc.weight", "head.fc.bias"}


def test_attention_weights_start_local_attention(files: dict[str, Path]) -> None:
    """The study's warm start, at the weights' head size; exact where the window covers the grid."""
    options: dict[str, Any] = {"pretrained": files[PPAA], "image_size": 64}
    mixer = {"name": "local_attention", "init": "warm"}
    model = create_model(PPAA, token_mixer=mixer, kernel_size=7, stages="PPTT", **options)
    assert model.config.stages[2].mixers == (Part("local_attention", {"kernel_size": 7, "head_dim": 32}),)
    x = images(64, 64)  # grids of 4 and 2
    torch.testing.assert_close(features(model, x), features(create_model(PPAA, **options), x), atol=1e-4, rtol=1e-4)
    report = report_of(model)
    assert " 0 new, 0 dropped" in report
    assert "adapted stages.2.position.embedding: bilinear from a grid of (14, 14) to (4, 4)" in report
    assert model.new_parameters == set()


def test_kernels_of_convolutions_start_larger_ones(files: dict[str, Path]) -> None:
    path = files["convformer_s18"]
    large = create_model("convformer_s18", kernel_size=9, pretrained=path, init="warm")
    x = images(64, 64)
    want = features(create_model("convformer_s18", pretrained=path), x)
    torch.testing.assert_close(features(large, x), want, atol=1e-4, rtol=1e-4)
    assert "18 adapted, 0 new, 0 dropped" in report_of(large)
    small = create_model("convformer_s18", kernel_size=3, pretrained=path, init="warm")
    assert "the centre of the 7x7 kernel, as 3x3" in report_of(small)


def test_2d_weights_start_a_3d_model(files: dict[str, Path]) -> None:
    options: dict[str, Any] = {"pretrained": files[NAME], "in_channels": 1, "num_classes": 2}
    volume = create_model(NAME, spatial_dims=3, inflate="centre", **options)
    flat = create_model(NAME, **options)
    x = images(32, 32, channels=1)
    got = features(volume, x.unsqueeze(2).repeat_interleave(32, dim=2))
    torch.testing.assert_close(got, features(flat, x).unsqueeze(2).expand_as(got), atol=1e-4, rtol=1e-4)
    report = report_of(volume)
    assert "4 adapted, 2 new, 2 dropped" in report
    stem = (
        "adapted stages.0.embed.proj.weight: from 3 to 1 image channels: their sum, then centre: 2D kernel to 7 slices"
    )
    assert stem in report
    assert volume.new_parameters == {"head.fc.weight", "head.fc.bias"}
    assert "official.pth" not in report
    assert f"weights from {NAME}.pth" in report


def test_inflation_and_swap_in_one(files: dict[str, Path]) -> None:
    mixer = {"name": "local_attention", "kernel_size": [1, 3, 3], "init": "pooling"}
    model = create_model(NAME, token_mixer=mixer, stages="PPPT", spatial_dims=3, inflate="mean", pretrained=files[NAME])
    report = report_of(model)
    assert "mean: 2D kernel to 3 slices" in report
    assert "the mean of its 1x3x3 window minus the position; the pooling that it replaces has 3x3x3" in report
    fresh = create_model(
        NAME, token_mixer={"name": "sep_conv", "kernel_size": (1, 3, 3)}, spatial_dims=3, inflate="centre",
        pretrained=files[NAME],
    )  # fmt: skip
    assert "new stages.0.blocks.0.token_mixer.conv.weight: another token mixer" in report_of(fresh)
    assert fresh.config.stages[0].mixers[0].options["kernel_size"] == (1, 3, 3)


def test_a_start_without_weights() -> None:
    """Acting as pooling needs none; a warm start and an inflation do."""
    options: dict[str, Any] = {"num_classes": 3, "in_channels": 1}
    model = create_model("metaformer_nano", token_mixer="local_attention", init="pooling", **options)
    assert "acts as pooling" in report_of(model)
    assert model.new_parameters == set()
    with pytest.raises(UserError, match="init='warm': expected weights to start from"):
        create_model(PPAA, token_mixer="local_attention", stages="PPTT", init="warm")
    with pytest.raises(UserError, match="expected 2D weights to inflate"):
        create_model("metaformer_nano", spatial_dims=3, inflate="centre")


def test_contradictions_are_refused(files: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"inflate='centre': expected a 3D model, got 'spatial_dims=2'"):
        create_model(NAME, pretrained=files[NAME], inflate="centre")
    with pytest.raises(UserError, match=r"unknown inflate"):
        create_model(NAME, pretrained=files[NAME], inflate="center", spatial_dims=3)
    with pytest.raises(UserError, match=r"unknown model init: .*try 'warm'"):
        ModelConfig(init="warn")
    with pytest.raises(UserError, match=r"unknown init of conv"):
        create_model("metaformer_nano", token_mixer={"name": "conv", "init": "pool"})
    with pytest.raises(UserError, match=r"init='warm' for conv: .*got 'pooling'"):
        create_model(NAME, pretrained=files[NAME], token_mixer="conv", init="warm")


def test_what_is_built_and_what_is_created_have_one_configuration(files: dict[str, Path]) -> None:
    """A trained model is built again without the file that it started from."""
    config = ModelConfig(
        name=NAME,
        token_mixer={"name": "local_attention", "init": "pooling"},
        stages="PPTT",
        pretrained=str(files[NAME]),
    )
    created, built = config.create(3, 1), config.build(3, 1)
    assert created.config == built.config
    built.load_state_dict(created.state_dict())
    x = images(64, 64, channels=1)
    assert torch.equal(features(created, x), features(built, x))
    assert config.has_start
    assert not ModelConfig(name=NAME, token_mixer="conv").has_start


def test_another_patch_embedding_is_fresh(files: dict[str, Path]) -> None:
    model = create_model(NAME, pretrained=files[NAME], embedding="non_overlap")
    assert "new stages.1.embed.proj.weight: another patch embedding" in report_of(model)


def test_timm_refuses_what_it_would_leave_out() -> None:
    pytest.importorskip("timm")
    plugin = pytest.importorskip("mixlab.plugins.timm")
    with pytest.raises(UserError, match="weights by timm's own arguments"):
        plugin.TimmMetaFormer("metaformer_nano", token_mixer="local_attention", init="pooling")


def test_global_tokens_and_feature_maps_go_with_a_start(files: dict[str, Path]) -> None:
    """The published pooling takes no tokens; the mixer that replaces it everywhere does."""
    tokens = GlobalTokens(registers=2, start_stage=2)
    model = create_model(
        PPAA, pretrained=files[PPAA], image_size=64, stages="IITT", letters={"I": "identity"},
        token_mixer={"name": "attention", "init": "warm"}, global_tokens=GlobalTokens(registers=2, start_stage=2),
    )  # fmt: skip
    assert model.config.global_tokens == tokens
    assert "new tokens: global tokens" in report_of(model)
    assert not [e for e in model.events if e["kind"] == "tokens_bypass"]
    with pytest.raises(UserError, match="a mixer that takes global tokens"):
        create_model(NAME, pretrained=files[NAME], token_mixer="sep_conv", init="pooling", global_tokens=tokens)
    maps = create_model(
        NAME, pretrained=files[NAME], token_mixer="sep_conv", kernel_size=3, init="pooling", features_only=True,
        out_norm="group_norm",
    )  # fmt: skip
    assert "new out_norms.0.weight: norm of returned maps" in report_of(maps)
    assert "dropped head.fc.weight: feature maps are returned" in report_of(maps)
    assert len(maps(images(64, 64))) == 4


def test_a_position_that_was_not_published_is_new(files: dict[str, Path]) -> None:
    """In the repository's names a position shifts the numbers of all that follows it."""
    options: dict[str, Any] = {"token_mixer": "attention", "stages": "PPTT", "image_size": 64, "num_classes": 4}
    model = create_model(NAME, pretrained=files[NAME], position="learned", **options)
    plain = create_model(NAME, pretrained=files[NAME], **options)
    added = {f"stages.{s}.position.embedding" for s in (2, 3)}
    assert model.new_parameters == plain.new_parameters | added
    assert "another position" in report_of(model)
    key = "stages.3.blocks.1.channel_mixer.fc1.weight"
    assert torch.equal(model.state_dict()[key], plain.state_dict()[key])
    # The published hybrid's own position is that of its file.
    hybrid = create_model(PPAA, pretrained=files[PPAA], image_size=64)
    assert hybrid.new_parameters == set()


def test_weights_of_a_training_of_ones_own(tmp_path: Path) -> None:
    """Attention that was trained in a frame whose published mixer is another starts local attention."""
    torch.manual_seed(5)
    mixers: dict[str, Any] = {"token_mixer": "attention", "stages": "PPTT"}
    trained = create_model("metaformer_nano", num_classes=4, layer_scale=0.5, **mixers)
    file = tmp_path / "best.ckpt"
    torch.save({"model": trained.state_dict(), "epoch": 3}, file)
    options: dict[str, Any] = {"stages": "PPTT", "pretrained": file, "weights_of": mixers, "layer_scale": 0.5}
    mixer = {"name": "local_attention", "kernel_size": 15, "init": "warm"}
    warm = create_model("metaformer_nano", num_classes=2, token_mixer=mixer, **options)
    x = images(48, 48)
    torch.testing.assert_close(features(warm, x), features(trained, x), atol=1e-4, rtol=1e-4)
    assert warm.new_parameters == {"head.fc.weight", "head.fc.bias"}
    random = create_model("metaformer_nano", num_classes=2, token_mixer="sep_conv", **options)
    assert not torch.allclose(features(random, x), features(trained, x), atol=1e-2)
    assert {k.split(".")[1] for k in random.new_parameters if "mixer" in k} == {"2", "3"}
    kept = "stages.3.blocks.0.channel_mixer.fc1.weight"
    assert torch.equal(random.state_dict()[kept], trained.state_dict()[kept])
    same = create_model("metaformer_nano", num_classes=4, pretrained=file, weights_of=mixers, layer_scale=0.5)
    torch.testing.assert_close(same.eval()(x), trained.eval()(x))


def test_weights_of_what_is_refused() -> None:
    with pytest.raises(UserError, match="unknown key in model weights_of"):
        create_model("metaformer_nano", pretrained="a.pth", weights_of={"mixer": "conv"})
    with pytest.raises(UserError, match="weights_of: expected weights beside it"):
        create_model("metaformer_nano", weights_of={"token_mixer": "conv"})
