"""Downsampling by depthwise convolutions."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mixlab.embeddings.rep_downsample import RepDownsample
from mixlab.errors import UserError
from mixlab.reparam import RepDepthwise
from tests.batch_norms import in_evaluation

SIZES = {1: (11,), 2: (7, 10), 3: (5, 3, 8)}


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_shape_gradients_and_cost(spatial_dims: int) -> None:
    size = SIZES[spatial_dims]
    embed = RepDownsample(4, 12, spatial_dims=spatial_dims)
    with FlopCounterMode(display=False) as counter:
        y = embed(torch.randn(1, 4, *size))
    assert tuple(y.shape) == (1, 12, *embed.output_size(size)) == (1, 12, *(-(-n // 2) for n in size))
    assert embed.reduction == (2,) * spatial_dims
    cost = embed.cost(size)
    assert counter.get_total_flops() == 2 * cost.macs_computed
    assert cost.parameters == sum(p.numel() for p in embed.parameters())
    y.square().sum().backward()
    for name, parameter in embed.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("size", [(1, 1), (1, 13), (2, 3)])
def test_any_size(size: tuple[int, int]) -> None:
    embed = in_evaluation(RepDownsample(4, 8))
    assert tuple(embed(torch.randn(1, 4, *size)).shape[2:]) == embed.output_size(size)


def test_one_axis_may_keep_its_size() -> None:
    embed = RepDownsample(4, 8, spatial_dims=3, kernel_size=(1, 7, 7), stride=(1, 2, 2))
    assert embed.output_size((5, 9, 8)) == (5, 5, 4)
    assert tuple(embed(torch.randn(1, 4, 5, 9, 8)).shape) == (1, 8, 5, 5, 4)


def test_groups_of_the_widening() -> None:
    """Each input channel makes its own outputs; the layer after it mixes them."""
    embed = in_evaluation(RepDownsample(4, 12, kernel_size=3).double())
    assert isinstance(embed.conv, RepDepthwise)
    x = torch.randn(1, 4, 6, 6, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(embed.conv(x)[0, 3:6].sum(), x)
    assert (grad.abs().sum((0, 2, 3)) > 0).tolist() == [False, True, False, False]


def test_bad_options() -> None:
    with pytest.raises(UserError, match="a multiple of the 32 channels"):
        RepDownsample(32, 48)
    with pytest.raises(UserError, match="rep_downsample kernel_size"):
        RepDownsample(4, 8, kernel_size=4)
    with pytest.raises(UserError, match="at least one position"):
        RepDownsample(4, 8).output_size((0, 3))
