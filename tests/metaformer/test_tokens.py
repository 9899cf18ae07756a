"""Global tokens: what a block does with them, what they leave alone, what they cost, how they are asked for."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mixlab import create_model
from mixlab.analysis import added_parameters
from mixlab.channel_mixers import CHANNEL_MIXERS
from mixlab.embeddings import GlobalTokens
from mixlab.errors import UserError
from mixlab.metaformer import MetaFormer, MetaFormerConfig, StageConfig
from mixlab.models import ModelConfig
from mixlab.registry import Part
from tests.batch_norms import in_evaluation

LOCAL = Part("local_attention", {"head_dim": 4, "backend": "reference", "slopes": True, "qk_norm": True})
MIXERS = {"local_attention": LOCAL, "attention": Part("attention", {"head_dim": 4})}
EXTENDED = {"name": "local_attention", "kernel_size": 5, "slopes": True, "relative_bias": True, "qk_norm": True}


def tiny(mixer: str, tokens: GlobalTokens | None, channel_mixer: str = "mlp", **options: Any) -> MetaFormer:
    """Two stages of 8 and 12 channels, in float64, with layer scales that are seen."""
    stages = tuple(
        StageConfig(
            depth=2,
            width=width,
            embedding=Part("conv"),
            mixers=(MIXERS[mixer],),
            channel_mixers=(Part(channel_mixer),),
            layer_scale=0.5,
        )
        for width in (8, 12)
    )
    config = MetaFormerConfig(stages=stages, num_classes=5, in_channels=2, global_tokens=tokens, **options)
    return in_evaluation(MetaFormer(config).double())


@pytest.mark.parametrize("mixer", list(MIXERS))
def test_a_block_treats_tokens_like_positions(mixer: str) -> None:
    """Written out: ``t + s mix(norm(t))``, then ``t + s channel_mixer(norm(t))``, each token normalised by itself."""
    model = tiny(mixer, GlobalTokens(registers=2))
    block = next(next(model.each_stage()).each_block())
    x, tokens = torch.randn(2, 8, 5, 4).double(), torch.randn(2, 2, 8).double()

    def normed(norm: nn.Module, t: torch.Tensor) -> torch.Tensor:
        return torch.stack([norm(t[:, i, :, None, None])[:, :, 0, 0] for i in range(t.shape[1])], dim=1)

    y, mixed = block.token_mixer(block.norm1(x), normed(block.norm1, tokens))
    x1, t1 = x + 0.5 * y, tokens + 0.5 * mixed
    want_x = x1 + 0.5 * block.channel_mixer(block.norm2(x1))
    as_maps = [block.channel_mixer(normed(block.norm2, t1)[:, i, :, None, None])[:, :, 0, 0] for i in range(2)]
    got_x, got_tokens = block(x, tokens)
    torch.testing.assert_close(got_x, want_x)
    torch.testing.assert_close(got_tokens, t1 + 0.5 * torch.stack(as_maps, dim=1))


def test_tokens_are_projected_between_stages_and_classified_from() -> None:
    model = tiny("local_attention", GlobalTokens(class_token=True, registers=1))
    x = torch.randn(3, 2, 13, 11).double()
    first, second = model.each_stage()
    maps, tokens = first(x, model.tokens.expand(3, -1, -1))
    projection = model.token_projections["1"]
    assert isinstance(projection, nn.Linear)
    last, tokens = second(maps, tokens @ projection.weight.t() + projection.bias)
    assert model.head is not None
    torch.testing.assert_close(model(x), model.head(tokens[:, 0, :, None, None]))
    torch.testing.assert_close(model.forward_features(x), last)
    assert not torch.allclose(model(x), model.head(tokens[:, 1, :, None, None]))
    with pytest.raises(UserError, match="classifies from one"):
        model.forward_head(last)


def test_registers_are_not_classified_from() -> None:
    model = tiny("local_attention", GlobalTokens(registers=3))
    x = torch.randn(2, 2, 13, 11).double()
    torch.testing.assert_close(model(x), model.forward_head(model.forward_features(x)))


@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("mixer", list(MIXERS))
def test_with_zeroed_projections_the_map_is_as_without_tokens(mixer: str, class_token: bool) -> None:
    """Where mixers write nothing, tokens have no way to the map; where they write, they change it."""
    tokens = GlobalTokens(class_token=class_token, registers=1)
    model, without = tiny(mixer, tokens), tiny(mixer, None)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 2, 13, 11).double()
    for zero in (False, True):
        for stage in model.each_stage():
            for block in stage.each_block() if zero else ():
                nn.init.zeros_(block.token_mixer.proj.weight)
                nn.init.zeros_(block.token_mixer.proj.bias)
        without.load_state_dict(model.state_dict(), strict=False)
        assert torch.allclose(model.forward_features(x), without.forward_features(x)) == zero


@pytest.mark.parametrize("channel_mixer", list(CHANNEL_MIXERS))
@pytest.mark.parametrize("start_stage", [0, 1])
@pytest.mark.parametrize("mixer", list(MIXERS))
def test_cost_is_what_torch_counts(mixer: str, start_stage: int, channel_mixer: str) -> None:
    tokens = GlobalTokens(class_token=True, registers=2, start_stage=start_stage)
    model = tiny(mixer, tokens, channel_mixer).requires_grad_(False)
    backend = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with FlopCounterMode(display=False) as counter, backend:
        model(torch.randn(1, 2, 13, 11).double())
    cost = model.cost((13, 11))
    assert counter.get_total_flops() == 2 * cost.macs_computed
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    assert cost.macs_needed > tiny(mixer, None, channel_mixer).cost((13, 11)).macs_needed


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
@pytest.mark.parametrize("mixer", [EXTENDED, "attention"])
def test_trains_by_name(mixer: Any, spatial_dims: int) -> None:
    model = create_model(
        "metaformer_nano",
        token_mixer=mixer,
        class_token=True,
        registers=1,
        num_classes=3,
        in_channels=1,
        spatial_dims=spatial_dims,
        drop_path_rate=0.1,
    )
    assert model.config.global_tokens == GlobalTokens(class_token=True, registers=1)
    size = (19, 23, 17)[:spatial_dims]
    model(torch.randn(2, 1, *size)).square().sum().backward()
    unread = {"stages.3.blocks.0.token_mixer.relative_bias"}  # nothing comes after the last map but the class token
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            assert name in unread
        else:
            assert parameter.grad.isfinite().all(), name
    assert model.cost(size).parameters == sum(p.numel() for p in model.parameters())


def test_added_parameters() -> None:
    """Those of the extended model, and no others, are more than the plain one's."""
    plain = create_model("metaformer_s12", token_mixer="local_attention", kernel_size=5)
    extended = create_model("metaformer_s12", token_mixer=EXTENDED, registers=1)
    heads = [(2, 4), (2, 8), (6, 20), (2, 32)]  # blocks, and heads of 16 channels
    blocks_times_heads = sum(blocks * h for blocks, h in heads)
    widths = [64, 128, 320, 512]
    projections = sum(b * (a + 1) for a, b in itertools.pairwise(widths))
    assert added_parameters(plain) == {}
    assert added_parameters(extended) == {
        "global_tokens": 64 + projections,
        "qk_scale": blocks_times_heads,
        "relative_bias": 25 * blocks_times_heads,
    }
    total = sum(p.numel() for p in extended.parameters()) - sum(p.numel() for p in plain.parameters())
    assert sum(added_parameters(extended).values()) == total


def test_asked_for_in_two_places() -> None:
    with pytest.raises(UserError, match="within global_tokens"):
        ModelConfig(registers=1, global_tokens=GlobalTokens(registers=1))
    with pytest.raises(UserError, match="a whole number, at least 0"):
        ModelConfig(registers=-1)
    with pytest.raises(UserError, match="a whole number, at least 0"):
        ModelConfig(registers=1.5)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="on_unsupported='bypass'"):
        create_model("metaformer_nano", token_mixer="local_attention", stages="PPTT", registers=1)
    tokens = GlobalTokens(registers=1, on_unsupported="bypass")
    model = create_model("metaformer_nano", token_mixer="local_attention", stages="PPTT", global_tokens=tokens)
    assert [e["kind"] for e in model.events] == ["tokens_bypass"] * 2
    start = dataclasses.replace(tokens, start_stage=2, on_unsupported="raise")
    later = create_model("metaformer_nano", token_mixer="local_attention", stages="PPTT", global_tokens=start)
    assert later.events == []


def test_compiles_and_exports_whole() -> None:
    model = create_model("metaformer_nano", token_mixer=EXTENDED, class_token=True, in_channels=1, num_classes=3).eval()
    x = torch.randn(2, 1, 48, 64)
    torch.testing.assert_close(torch.compile(model, backend="aot_eager", fullgraph=True)(x), model(x))
    sizes = {2: torch.export.Dim("h", min=33, max=256), 3: torch.export.Dim("w", min=33, max=256)}
    program = torch.export.export(model, (x,), dynamic_shapes=(sizes,))
    z = torch.randn(2, 1, 53, 37)
    torch.testing.assert_close(program.module()(z), model(z), atol=1e-5, rtol=1e-4)
