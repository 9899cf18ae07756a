"""Relations between mixers that must hold exactly."""

from __future__ import annotations

import pytest
import torch

from mixlab.mixers.attention import Attention
from mixlab.mixers.conv import Conv
from mixlab.mixers.local_attention import LocalAttention
from mixlab.mixers.pooling import Pooling
from mixlab.mixers.sep_conv import SepConv


@pytest.mark.parametrize(("size", "kernel"), [((5,), 9), ((3, 5), (5, 9)), ((2, 3, 4), (3, 5, 7))])
@pytest.mark.parametrize("backend", ["reference", "pure"])
def test_local_equals_full_attention_when_the_window_covers_the_grid(
    size: tuple[int, ...], kernel: int | tuple[int, ...], backend: str
) -> None:
    dims = len(size)
    full = Attention(8, spatial_dims=dims, head_dim=4).double()
    local = LocalAttention(8, spatial_dims=dims, head_dim=4, kernel_size=kernel, backend=backend).double()
    local.load_state_dict(full.state_dict())
    x = torch.randn(2, 8, *size, dtype=torch.float64)
    torch.testing.assert_close(local(x)[0], full(x)[0])


def test_pooling_is_a_depthwise_convolution_away_from_borders() -> None:
    conv = SepConv(4, kernel_size=3, bias=False).double()
    torch.nn.init.constant_(conv.conv.weight, 1 / 9)
    x = torch.randn(1, 4, 7, 11, dtype=torch.float64)
    inner = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(Pooling(4, subtract_input=False)(x)[inner], conv(x)[inner])


def test_a_constant_map_pools_to_zero_up_to_the_border() -> None:
    for dims in (1, 2, 3):
        x = torch.full((1, 3, *(5, 4, 3)[:dims]), 2.5)
        assert Pooling(3, spatial_dims=dims, kernel_size=5)(x).abs().max() < 1e-6


def test_sep_conv_is_a_dense_convolution_with_a_diagonal_kernel() -> None:
    dense, sep = Conv(4).double(), SepConv(4).double()
    with torch.no_grad():
        dense.conv.weight.zero_()
        dense.conv.weight[range(4), range(4)] = sep.conv.weight[:, 0]
        dense.conv.bias.copy_(sep.conv.bias)
    x = torch.randn(2, 4, 7, 5, dtype=torch.float64)
    torch.testing.assert_close(dense(x), sep(x))


def test_global_tokens_of_attention_join_the_sequence() -> None:
    mixer = Attention(8, head_dim=4)
    x, tokens = torch.randn(2, 8, 3, 5), torch.randn(2, 2, 8)
    alone, none = mixer(x)
    together, mixed = mixer(x, tokens)
    assert none is None
    assert mixed.shape == tokens.shape
    assert not torch.allclose(alone, together)
    as_map = torch.cat([tokens.transpose(1, 2), x.flatten(2)], dim=2)  # the same sequence as one map (B, C, 2 + 15)
    line = Attention(8, spatial_dims=1, head_dim=4)
    line.load_state_dict(mixer.state_dict())
    torch.testing.assert_close(line(as_map)[0][:, :, 2:].reshape(x.shape), together)
