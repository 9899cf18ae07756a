"""Stems of several convolutions, and the pair of convolution and BatchNorm they are made of."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mixlab.embeddings import EMBEDDINGS
from mixlab.embeddings.conv_stack import ConvStack
from mixlab.errors import UserError
from mixlab.metaformer import MetaFormer, MetaFormerConfig, StageConfig
from mixlab.registry import Part
from mixlab.reparam import ConvNorm

SIZES = {1: (13,), 2: (13, 10), 3: (13, 10, 7)}


def trained(module: nn.Module, x: torch.Tensor) -> nn.Module:
    """The module in evaluation mode, with running statistics and affine pairs that are not those of the start."""
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias)
    for _ in range(3):
        module(x)
    return module.eval()


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"hidden": (5, 6, 7), "strides": (2, 1, 2, 1), "bias": False}])
def test_shape_cost_and_fusing(options: dict[str, Any], spatial_dims: int) -> None:
    size = SIZES[spatial_dims]
    embed = EMBEDDINGS.build(Part("conv_stack", options), 2, 4, spatial_dims=spatial_dims)
    x = torch.randn(3, 2, *size)
    want = trained(embed, x)(x)
    assert tuple(want.shape[2:]) == embed.output_size(size) == (4, 3, 2)[:spatial_dims]
    assert embed.reduction == (4,) * spatial_dims
    fused = copy.deepcopy(embed).fuse()  # type: ignore[operator]
    torch.testing.assert_close(fused(x), want, atol=1e-5, rtol=1e-5)
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in fused.modules())
    for form in (embed, fused, fused.fuse(), pickle.loads(pickle.dumps(fused))):
        with FlopCounterMode(display=False) as counter:
            form(x[:1])
        cost = form.cost(size)
        assert counter.get_total_flops() == 2 * cost.macs_computed
        assert cost.parameters == sum(p.numel() for p in form.parameters())
    assert fused.cost(size).macs_needed == embed.cost(size).macs_needed


def test_it_is_the_formula() -> None:
    embed = ConvStack(2, 4, hidden=(3,), strides=(2, 1)).eval()
    x = torch.randn(2, 2, 9, 7)
    first, last = embed.layers
    assert isinstance(first, ConvNorm)
    assert isinstance(last, ConvNorm)
    hidden = nn.functional.gelu(first.norm(first.conv(x)))
    torch.testing.assert_close(embed(x), last.norm(last.conv(hidden)))
    assert (embed(x) < -0.1).any()  # nothing after the last


def test_fused_inside_a_model() -> None:
    stage = StageConfig(depth=1, width=8, mixers=(Part("pooling"),), embedding=Part("conv_stack"))
    model = MetaFormer(MetaFormerConfig(stages=(stage,), num_classes=3))
    x = torch.randn(4, 3, 17, 12)
    want = trained(model, x)(x)
    before = model.cost((17, 12))
    torch.testing.assert_close(model.fuse()(x), want, atol=1e-5, rtol=1e-5)
    after = model.cost((17, 12))
    assert after.macs_computed == before.macs_computed
    assert after.parameters == sum(p.numel() for p in model.parameters()) < before.parameters


@pytest.mark.parametrize(
    "options", [{"stride": 2, "groups": 4}, {"padding": 0, "bias": True}, {"kernel_size": 1, "stride": 2}]
)
@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_conv_norm(options: dict[str, Any], spatial_dims: int) -> None:
    size = SIZES[spatial_dims]
    pair = ConvNorm(4, 8, **{"kernel_size": 3, **options}, spatial_dims=spatial_dims)
    x = torch.randn(3, 4, *size)
    with pytest.raises(AssertionError):
        pair.fuse()  # in training mode BatchNorm is no fixed map
    want = trained(pair, x)(x)
    assert tuple(want.shape[2:]) == pair.output_size(size)
    with FlopCounterMode(display=False) as counter:
        pair(x[:1])
    assert counter.get_total_flops() == 2 * pair.cost(size).macs_computed
    assert pair.cost(size).parameters == sum(p.numel() for p in pair.parameters())
    torch.testing.assert_close(pair.fuse()(x), want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pair(x), want)  # the pair itself stays as it was


def test_one_pixel_is_a_token() -> None:
    assert ConvStack(1, 4).eval()(torch.randn(1, 1, 1, 1)).shape == (1, 4, 1, 1)


def test_bad_options() -> None:
    with pytest.raises(UserError, match="3 strides, one per convolution"):
        ConvStack(1, 4, hidden=(2, 2), strides=(2, 2))
    with pytest.raises(UserError, match="numbers of channels"):
        ConvStack(1, 4, hidden=(0,))
    with pytest.raises(UserError, match="odd sizes"):
        ConvStack(1, 4, kernel_size=2)
    with pytest.raises(UserError, match="at least one position"):
        ConvStack(1, 4).output_size((0, 5))
