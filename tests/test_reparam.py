"""Parts with a training form: the deployment form computes the same and costs what it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mixlab import create_model
from mixlab.errors import UserError
from mixlab.metaformer import MetaFormer
from mixlab.reparam import ConvNorm, NormSkip, RepDepthwise, layer_cost, layer_output
from tests.batch_norms import in_evaluation

SIZES = {1: (11,), 2: (7, 10), 3: (5, 3, 8)}
PARTS: dict[str, Callable[[int], Any]] = {
    "conv and norm": lambda d: ConvNorm(4, 6, 3, spatial_dims=d, stride=2),
    "conv with bias and norm": lambda d: ConvNorm(4, 6, 3, spatial_dims=d, bias=True),
    "depthwise": lambda d: RepDepthwise(4, 4, 5, spatial_dims=d),
    "widening": lambda d: RepDepthwise(4, 12, 7, spatial_dims=d, stride=2),
    "norm and skip": lambda d: NormSkip(4, spatial_dims=d),
}


def check(part: Any, x: torch.Tensor) -> nn.Module:
    """Fused equals unfused; the part itself stays as it was, the fused one can be trained."""
    part = in_evaluation(part.double())
    before = {k: v.clone() for k, v in part.state_dict().items()}
    want = part(x)
    fused: nn.Module = part.fuse()
    torch.testing.assert_close(fused(x), want)
    torch.testing.assert_close(part(x), want)
    assert all(torch.equal(v, before[k]) for k, v in part.state_dict().items())
    assert isinstance(fused, nn.modules.conv._ConvNd)
    assert fused.bias is not None
    assert all(p.requires_grad for p in fused.parameters())
    return fused


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
@pytest.mark.parametrize("name", PARTS)
def test_fused_equals_unfused(name: str, spatial_dims: int) -> None:
    x = torch.randn(2, 4, *SIZES[spatial_dims], dtype=torch.float64)
    check(PARTS[name](spatial_dims), x)
    check(PARTS[name](spatial_dims), x[(slice(None), slice(None), *(slice(1),) * spatial_dims)])  # one position


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7, 9, (1, 3, 3), (7, 1, 5)])
def test_kernels_of_two_convolutions(kernel: int | tuple[int, ...], stride: int) -> None:
    x = torch.randn(2, 4, *SIZES[3], dtype=torch.float64)
    fused = check(RepDepthwise(4, 8, kernel, spatial_dims=3, stride=stride), x)
    assert fused.kernel_size == (kernel if isinstance(kernel, tuple) else (kernel,) * 3)


def test_narrow_kernels() -> None:
    narrow = {k: RepDepthwise(2, 2, k).narrow.conv.kernel_size[0] for k in (1, 3, 5, 7, 9, 31)}
    assert narrow == {1: 1, 3: 1, 5: 3, 7: 3, 9: 5, 31: 15}


def test_bad_options() -> None:
    with pytest.raises(UserError, match="try 3 or 5"):
        RepDepthwise(4, 4, 4)
    with pytest.raises(UserError, match="a multiple of the 4 channels"):
        RepDepthwise(4, 6, 3)


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
@pytest.mark.parametrize("name", PARTS)
def test_cost_and_size_of_both_forms(name: str, spatial_dims: int) -> None:
    part, size = PARTS[name](spatial_dims).eval(), SIZES[spatial_dims]
    for form in (part, part.fuse()):
        cost = layer_cost(form, size)
        with FlopCounterMode(display=False) as counter:
            y = form(torch.randn(1, 4, *size))
        assert tuple(y.shape[2:]) == layer_output(form, size)
        assert cost.macs_computed * 2 == counter.get_total_flops()
        assert cost.parameters == sum(p.numel() for p in form.parameters())


def check_model(model: MetaFormer, size: tuple[int, ...]) -> None:
    """In float64, where rounding hides nothing."""
    model = in_evaluation(model.double())
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    want, parameters = model(x), model.cost(size).parameters
    model.fuse()
    torch.testing.assert_close(model(x), want)
    assert not any(isinstance(m, ConvNorm | RepDepthwise | NormSkip) for m in model.modules())
    cost = model.cost(size)
    assert cost.parameters == sum(p.numel() for p in model.parameters()) < parameters
    with FlopCounterMode(display=False) as counter:
        model(x[:1])
    assert counter.get_total_flops() == 2 * cost.macs_computed


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_a_model_with_ffnified_attention_fuses(spatial_dims: int) -> None:
    mixer = "ffnified_attention"
    model = create_model("metaformer_nano", token_mixer=mixer, spatial_dims=spatial_dims, num_classes=5)
    check_model(model, (37, 21, 18)[:spatial_dims])


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_ffnet_fuses(spatial_dims: int) -> None:
    check_model(create_model("ffnet_1", spatial_dims=spatial_dims, num_classes=5), (35, 33, 40)[:spatial_dims])
