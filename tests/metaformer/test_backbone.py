"""The frame, for every mixer and in every dimension."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from mixlab import create_model
from mixlab.architectures import ARCHITECTURES
from mixlab.embeddings import GlobalTokens
from mixlab.errors import UserError
from mixlab.metaformer import MetaFormer, MetaFormerConfig, Stage, StageConfig
from mixlab.metaformer.backbone import _initialise
from mixlab.mixers import MIXERS
from mixlab.models import ModelConfig
from mixlab.registry import Part

SIZES = {1: (67,), 2: (37, 41), 3: (19, 23, 17)}


def tiny(**changes: Any) -> MetaFormerConfig:
    """Two stages of 8 and 12 channels."""
    stage: dict[str, Any] = {"depth": 2, "mixers": (Part("pooling"),), "embedding": Part("conv")}
    stage |= changes.pop("stage", {})
    stages = tuple(StageConfig(width=width, **stage) for width in (8, 12))
    return MetaFormerConfig(stages=stages, num_classes=5, in_channels=2, **changes)


def first_stage(model: MetaFormer) -> Stage:
    return next(model.each_stage())


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
@pytest.mark.parametrize("mixer", list(MIXERS))
def test_every_mixer_trains_in_every_dimension(mixer: str, spatial_dims: int) -> None:
    model = create_model(
        "metaformer_nano",
        token_mixer=mixer,
        num_classes=5,
        in_channels=2,
        spatial_dims=spatial_dims,
        drop_path_rate=0.2,
        image_size=SIZES[spatial_dims],
    )
    x = torch.randn(3, 2, *SIZES[spatial_dims])
    logits = model(x)
    assert logits.shape == (3, 5)
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    assert model.cost(SIZES[spatial_dims]).parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_features_have_the_stated_strides(name: str) -> None:
    size = (96, 64)
    model = create_model(name, features_only=True, image_size=size)
    maps = model(torch.randn(1, 3, *size))
    assert len(maps) == len(model.feature_info)
    for m, info, expected in zip(maps, model.feature_info, model.stage_sizes(size), strict=True):
        assert tuple(m.shape) == (1, info["num_chs"], *expected)
        assert tuple(n // r for n, r in zip(size, info["reduction"], strict=True)) == expected
    if name != "metaformer_nano":
        assert [i["reduction"][0] for i in model.feature_info] == [4, 8, 16, 32]


def test_stages_letters() -> None:
    model = create_model("metaformer_s12", token_mixer="sep_conv", kernel_size=5, stages="PPTT")
    kinds = [type(next(stage.each_block()).token_mixer).__name__ for stage in model.each_stage()]
    assert kinds == ["Pooling", "Pooling", "SepConv", "SepConv"]
    custom = create_model("metaformer_nano", stages="AATI", letters={"A": "attention", "I": "identity"})
    assert type(next(first_stage(custom).each_block()).token_mixer).__name__ == "Attention"


def test_a_list_of_mixers_is_cycled_over_the_blocks() -> None:
    model = create_model("metaformer_s12", token_mixer=["pooling", {"name": "sep_conv", "kernel_size": 7}])
    kinds = [type(b.token_mixer).__name__ for b in list(model.each_stage())[2].each_block()]
    assert kinds == ["Pooling", "SepConv"] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "metaformer_s21"}, "try 'metaformer_s24' or 'metaformer_s12'"),
        ({"token_mixer": "local_atention"}, "try 'local_attention'"),
        ({"token_mixr": "pooling"}, "try 'token_mixer'"),
        ({"token_mixer": "pooling", "kernel_size": 4}, "try 3 or 5"),
        ({"token_mixer": "pooling", "kernel_size": -1}, "at least 1"),
        ({"token_mixer": "attention", "kernel_size": 3}, "a mixer with a window"),
        ({"token_mixer": {"name": "attention", "head_dim": 48}}, "divisor of the width 32"),
        ({"stages": "PPT"}, "4 letters"),
        ({"stages": "PPTX"}, "out of P, T"),
        ({"num_classes": -1}, "at least 0"),
        ({"token_mixer": "pooling", "kernel_size": 3.0}, "an int or 2 ints"),
        ({"token_mixer": "pooling", "kernel_size": "3"}, "an int or 2 ints"),
        ({"token_mixer": {"name": "attention", "head_dim": "16"}}, "a whole number"),
        ({"dropout": 2}, "probability"),
        ({"mlp_ratio": 0.001}, "at least one hidden channel"),
        ({"mlp_ratio": -1}, "a positive number"),
        ({"drop_path_rate": 1.5}, "probability"),
        ({"drop_path_schedule": "cosine"}, "'linear' or 'constant'"),
        ({"spatial_dims": 4}, "1, 2 or 3"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_model(**{"name": "metaformer_nano", **arguments})


def test_bad_images() -> None:
    model = create_model("metaformer_s12", in_channels=1)
    with pytest.raises(UserError, match=r"expected shape \(B, 1, H, W\), got \(2, 3, 64, 64\)"):
        model(torch.randn(2, 3, 64, 64))
    with pytest.raises(UserError, match=r"expected shape \(B, 1, H, W\)"):
        model(torch.randn(2, 1, 8, 64, 64))
    with pytest.raises(UserError, match="stage 0: patch embedding: expected an input of at least 3"):
        model(torch.randn(2, 1, 2, 64))
    assert model(torch.randn(1, 1, 3, 5)).shape == (1, 1000)  # one token is enough


def test_drop_path_schedules() -> None:
    linear = tiny(drop_path_rate=0.3).drop_paths()
    assert [round(r, 6) for stage in linear for r in stage] == [0.0, 0.1, 0.2, 0.3]
    constant = tiny(drop_path_rate=0.3, drop_path_schedule="constant").drop_paths()
    assert constant == [[0.3, 0.3], [0.3, 0.3]]


def test_drop_path_keeps_the_mean_and_does_nothing_in_evaluation() -> None:
    model = MetaFormer(tiny(drop_path_rate=0.5, drop_path_schedule="constant", stage={"layer_scale": 0.1}))
    x = torch.randn(1, 2, 13, 11)
    block = next(first_stage(model).each_block())
    torch.testing.assert_close(model.eval()(x), model(x))
    block.train()
    factors = block._draw(torch.zeros(10_000, 1))
    assert factors is not None
    assert set(factors.unique().tolist()) == {0.0, 2.0}
    assert factors.mean().item() == pytest.approx(1.0, abs=0.05)


def test_gradient_checkpointing_changes_nothing() -> None:
    model = MetaFormer(tiny(drop_path_rate=0.2))
    x = torch.randn(2, 2, 13, 11)
    results = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        torch.manual_seed(1)
        loss = model(x).square().sum()
        loss.backward()
        results.append([loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_reset_classifier_and_pooled_features() -> None:
    model = MetaFormer(tiny())
    x = torch.randn(2, 2, 13, 11)
    model.reset_classifier(7)
    assert model(x).shape == (2, 7)
    model.reset_classifier(0)
    assert model(x).shape == (2, 12)
    torch.testing.assert_close(model.forward_head(model.forward_features(x)), model(x))


def test_repeat_shares_weights() -> None:
    once, twice = MetaFormer(tiny()), MetaFormer(tiny(stage={"repeat": 2}))
    assert once.state_dict().keys() == twice.state_dict().keys()
    twice.load_state_dict(once.state_dict())
    x = torch.randn(1, 2, 13, 11)
    assert not torch.allclose(once(x), twice(x))
    stage = first_stage(once)
    y = stage.embed(x)
    for _ in range(2):
        for block in stage.each_block():
            y, _tokens = block(y)
    torch.testing.assert_close(first_stage(twice)(x)[0], y)
    assert twice.cost((13, 11)).macs_needed > once.cost((13, 11)).macs_needed
    assert twice.cost((13, 11)).parameters == once.cost((13, 11)).parameters


def test_norms_in_the_path_and_on_copies() -> None:
    x = torch.randn(2, 2, 13, 11)
    copies = MetaFormer(tiny(features_only=True, stage={"out_norm": Part("layer_norm")}))
    plain = MetaFormer(tiny(features_only=True))
    plain.load_state_dict(copies.state_dict(), strict=False)
    for normed, raw in zip(copies(x), plain(x), strict=True):
        torch.testing.assert_close(normed.mean(1), torch.zeros_like(normed.mean(1)), atol=1e-5, rtol=0)
        assert raw.mean(1).abs().max() > 1e-3
    path = MetaFormer(tiny(features_only=True, stage={"stage_norm": Part("layer_norm")}))
    path.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(path(x)[0], copies(x)[0])  # the first stage ends in the same norm
    assert not torch.allclose(path(x)[1], copies(x)[1])  # the second stage sees it in the path only


@pytest.mark.parametrize(
    "stage",
    [
        {"norm": None},
        {"norm": Part("batch_norm")},
        {"norm": Part("layer_norm", {"bias": False, "eps": 1e-6})},
        {"res_scale": True, "layer_scale": 0.1},
        {"block_position": Part("conv")},
        {"embedding": Part("conv", {"norm": "batch_norm", "pre_norm": {"name": "group_norm", "bias": False}})},
    ],
)
@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_options_of_the_frame(stage: dict[str, Any], spatial_dims: int) -> None:
    model = MetaFormer(tiny(spatial_dims=spatial_dims, stage=stage))
    x = torch.randn(2, 2, *(13, 11, 9)[:spatial_dims])
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model.cost(x.shape[2:]).parameters == sum(p.numel() for p in model.parameters())


def test_fuse_folds_batch_norm_into_the_embedding() -> None:
    model = MetaFormer(tiny(stage={"embedding": Part("conv", {"norm": "batch_norm"})}))
    for _ in range(3):
        model(torch.randn(4, 2, 13, 11))  # running statistics that are not those of the start
    with pytest.raises(UserError, match="evaluation mode"):
        model.fuse()
    x = torch.randn(2, 2, 13, 11)
    before = model.eval()(x)
    parameters = sum(p.numel() for p in model.parameters())
    torch.testing.assert_close(model.fuse()(x), before)
    assert sum(p.numel() for p in model.parameters()) == parameters - 2 * (8 + 12)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


def test_parts_on_a_grid() -> None:
    with pytest.raises(UserError, match="try image_size=224"):
        MetaFormer(tiny(stage={"position": Part("learned")}))
    model = MetaFormer(tiny(stage={"position": Part("learned")}, image_size=(13, 11)))
    assert [tuple(p.shape[2:]) for n, p in model.named_parameters() if n.endswith("embedding")] == [(7, 6), (4, 3)]
    model(torch.randn(1, 2, 13, 11)).sum().backward()
    with pytest.raises(UserError, match=r"try a model built with the image_size .*resize='bilinear'"):
        model(torch.randn(1, 2, 17, 11))
    resizing = MetaFormer(tiny(stage={"position": Part("learned", {"resize": "bilinear"})}, image_size=(13, 11)))
    assert resizing(torch.randn(1, 2, 17, 11)).shape == (1, 5)


def test_global_tokens() -> None:
    tokens = GlobalTokens(class_token=True, registers=2)
    model = MetaFormer(tiny(stage={"mixers": (Part("attention", {"head_dim": 4}),)}, global_tokens=tokens))
    x = torch.randn(2, 2, 13, 11)
    logits = model(x)
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    with pytest.raises(UserError, match="on_unsupported='bypass'"):
        MetaFormer(tiny(global_tokens=tokens))
    bypass = dataclasses.replace(tokens, on_unsupported="bypass", class_token=False)
    passed = MetaFormer(tiny(global_tokens=bypass))
    assert [e["kind"] for e in passed.events] == ["tokens_bypass", "tokens_bypass"]
    without = MetaFormer(tiny())
    without.load_state_dict(passed.state_dict(), strict=False)
    torch.testing.assert_close(passed(x), without(x))  # registers that no mixer takes leave the map as it was


def test_model_config_is_its_own_record() -> None:
    config = ModelConfig(name="metaformer_nano", token_mixer={"name": "pooling", "kernel_size": 5}, mlp_ratio=2.0)
    again = ModelConfig(**dataclasses.asdict(config))
    assert again.configuration() == config.configuration()


@pytest.mark.parametrize("mixer", ["conv", "sep_conv", "local_attention"])
def test_compiles_and_exports_whole(mixer: str) -> None:
    """Mixers that no published architecture has; those of the others: ``tests/architectures/test_export.py``."""
    model = create_model("metaformer_nano", token_mixer=mixer, in_channels=1, num_classes=3).eval()
    x = torch.randn(2, 1, 48, 64)
    want = model(x)
    torch.testing.assert_close(torch.compile(model, backend="aot_eager", fullgraph=True)(x), want)
    sizes = {2: torch.export.Dim("h", min=33, max=256), 3: torch.export.Dim("w", min=33, max=256)}
    program = torch.export.export(model, (x,), dynamic_shapes=(sizes,))
    z = torch.randn(2, 1, 53, 37)
    torch.testing.assert_close(program.module()(z), model(z), atol=1e-5, rtol=1e-4)


def test_deepcopy_gives_the_same_model() -> None:
    model = create_model("metaformer_nano", token_mixer="local_attention", num_classes=3)
    x = torch.randn(1, 3, 32, 32)
    want = model(x)
    assert torch.equal(copy.deepcopy(model)(x), want)


def test_a_part_may_keep_its_own_initialisation() -> None:
    class Own(nn.Module):
        keeps_init = True

        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2)
            nn.init.constant_(self.fc.weight, 7.0)

    class Other(Own):
        keeps_init = False

    own, other = Own(), Other()
    for part in (own, other):
        _initialise(part)
    assert (own.fc.weight == 7.0).all()
    assert (other.fc.weight.abs() < 0.1).all()


def test_registry_of_models() -> None:
    assert {"metaformer_nano", "metaformer_s12", "metaformer_m48"} <= set(ARCHITECTURES)


def test_what_optimisers_should_not_shrink() -> None:
    model = create_model("transnext_micro")
    names, spared = {n for n, _ in model.named_parameters()}, model.no_weight_decay()
    assert spared <= names
    block = "stages.0.blocks.0.token_mixer."
    kinds = ("temperature", "query_embedding", "relative_pos_bias_local", "cpb.fc1.weight", "cpb.fc2.weight")
    assert {n for n in spared if n.startswith(block)} == {block + kind for kind in kinds}
    assert create_model("metaformer_ppaa_s12_224").no_weight_decay() == {"stages.2.position.embedding"}
    assert create_model("poolformer_s12").no_weight_decay() == set()


def test_the_mixer_under_study_is_the_stages_own_unless_named() -> None:
    config = ModelConfig(name="transnext_micro_AAAA", kernel_size=5, stages="PTTT").configuration()
    options = [s.mixers[0].options for s in config.stages]
    assert [o.get("sr_ratio") for o in options] == [None, 8, 4, 2]
    assert [o["kernel_size"] for o in options] == [3, 5, 5, 5]
