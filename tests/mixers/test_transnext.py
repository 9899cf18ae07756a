"""TransNeXt's attentions and gated channel mixer: relations that must hold exactly."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mixlab.channel_mixers.conv_glu import ConvGLU
from mixlab.errors import UserError
from mixlab.mixers.aggregated_attention import AggregatedAttention
from mixlab.mixers.cosine_attention import CosineAttention
from mixlab.ops.log_cpb import differences, log_coordinates, table_entries, table_index
from mixlab.ops.pooled_grid import averaging, bin_entries, pool_to

SIZES = [(7,), (7, 5), (8, 12), (1, 3), (3, 4, 5)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("options", [{}, {"learnable_tokens": False, "query_embedding": False}, {"kernel_size": 5}])
def test_both_backends_agree(size: tuple[int, ...], options: dict[str, Any]) -> None:
    mixer = AggregatedAttention(8, spatial_dims=len(size), head_dim=4, **options).double()
    x = torch.randn(2, 8, *size, dtype=torch.float64, requires_grad=True)
    results = []
    for backend in ("auto", "reference"):
        mixer.backend = backend
        y = mixer(x)
        results.append([y, *torch.autograd.grad(y.square().sum(), [x, *mixer.parameters()])])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_unknown_backend() -> None:
    with pytest.raises(UserError, match="one of auto, reference"):
        AggregatedAttention(8, head_dim=4, backend="fast")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_bins_are_those_of_adaptive_pooling(size: tuple[int, ...], ratio: int) -> None:
    pooled = tuple(max(1, n // ratio) for n in size)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    y = x
    for axis, p in enumerate(pooled, start=2):
        y = (y.movedim(axis, -1) @ averaging(y.shape[axis], p, y).t()).movedim(-1, axis)
    torch.testing.assert_close(pool_to(x, pooled), y)
    per_axis = [(averaging(n, p, x) > 0).sum().item() for n, p in zip(size, pooled, strict=True)]
    assert bin_entries(size, pooled) == math.prod(per_axis)


@pytest.mark.parametrize("n", range(1, 14))
def test_table_of_differences(n: int) -> None:
    """Every pair finds the coordinates of its own difference; the table has each difference once."""
    for p in range(1, n + 1):
        keys = F.adaptive_avg_pool1d(torch.arange(n, dtype=torch.float64)[None], p)[0]
        d = (torch.arange(n, dtype=torch.float64)[None, :] - keys[:, None]).flatten() * 8 / max(n - 1, 1)
        device = torch.device("cpu")
        table = log_coordinates((n,), (p,), (n,), dtype=torch.float64, device=device)
        index = table_index((n,), (p,), device=device)
        torch.testing.assert_close(table[index.flatten(), 0], d.sign() * torch.log2(d.abs() + 1) / 3)
        assert len(table) == len(differences(n, p)) == len(d.unique())
        if n % p == 0:
            assert len(table) == 2 * n - n // p
    assert table_entries((n, n), None) == table_entries((n, n), (n, n)) == (2 * n - 1) ** 2


def test_full_attention_is_the_same_with_pooled_keys_of_one_position_each() -> None:
    """Both ways to the bias: keys that are positions, and bins of one position."""
    mixer = CosineAttention(8, head_dim=4, pretrain_size=5)
    torch.testing.assert_close(mixer.cpb((3, 4)), mixer.cpb((3, 4), (3, 4)))


def test_a_reflected_image_gives_a_reflected_map() -> None:
    """Where the bias does not tell left from right."""
    mixer = AggregatedAttention(8, head_dim=4).double()
    with torch.no_grad():
        mixer.cpb.fc2.weight.zero_()
        mixer.relative_pos_bias_local.zero_()
        assert mixer.learnable_tokens is not None
        mixer.learnable_tokens.zero_()
    x = torch.randn(1, 8, 6, 9, dtype=torch.float64)
    torch.testing.assert_close(mixer(x.flip(3)), mixer(x).flip(3))


def test_cosines_do_not_see_the_length_of_keys() -> None:
    mixer = CosineAttention(8, head_dim=4, qkv_bias=False).double()
    x = torch.randn(1, 8, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(
        mixer(7 * x) - mixer.proj.bias[:, None, None], 7 * (mixer(x) - mixer.proj.bias[:, None, None])
    )


def test_equal_values_are_returned_whatever_the_weights() -> None:
    """One softmax over window and pooled keys: all weights together are one."""
    mixer = AggregatedAttention(8, head_dim=4, learnable_tokens=False).double()
    with torch.no_grad():
        mixer.kv.weight[8:].zero_()
        mixer.kv.bias[8:].fill_(1.5)
    x = torch.randn(1, 8, 5, 6, dtype=torch.float64)
    want = mixer.proj(torch.full_like(x, 1.5))
    torch.testing.assert_close(mixer(x), want)


def test_no_bin_of_an_exported_graph_stands_for_nothing() -> None:
    """Spare bins are masked, at sizes with and without a remainder, down to one key."""
    mixer = AggregatedAttention(6, head_dim=3, sr_ratio=4).eval()
    dims = {2: torch.export.Dim("h", min=2, max=64), 3: torch.export.Dim("w", min=2, max=64)}
    program = torch.export.export(mixer, (torch.randn(1, 6, 9, 13),), dynamic_shapes=(dims,)).module()
    for size in ((2, 2), (3, 17), (8, 16), (21, 10)):
        x = torch.randn(1, 6, *size)
        torch.testing.assert_close(program(x), mixer(x))


def test_conv_glu_without_its_convolution_is_what_tokens_get() -> None:
    mixer = ConvGLU(6, kernel_size=(1, 1))
    with torch.no_grad():
        mixer.conv.weight.fill_(1)
        mixer.conv.bias.zero_()
    x = torch.randn(2, 6, 3, 5)
    tokens = x.flatten(2).transpose(1, 2)
    torch.testing.assert_close(mixer.forward_tokens(tokens), mixer(x).flatten(2).transpose(1, 2))


def test_conv_glu_has_the_parameters_of_an_mlp() -> None:
    assert ConvGLU(48).hidden == 256
    assert ConvGLU(192, ratio=4).hidden == 512
    with pytest.raises(UserError, match="at least one hidden channel"):
        ConvGLU(2, ratio=0.5)
