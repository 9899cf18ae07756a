"""The study's patch embeddings: their formulas position by position, and their parameters."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from mixlab import create_model
from mixlab.embeddings.conv import ConvEmbedding
from mixlab.embeddings.coord_mlp import CoordMLP, CoordMLPConv, CoordMLPEmbedding
from mixlab.embeddings.none import Resampling
from mixlab.embeddings.patches import non_overlapping, overlapping
from mixlab.errors import UserError

WIDTHS = (64, 128, 320, 512)


def sampled(image: torch.Tensor, place: tuple[float, ...]) -> torch.Tensor:
    """Linear interpolation of ``(C, *spatial)`` at a place in pixels, one corner after the other."""
    total = torch.zeros(len(image), dtype=image.dtype)
    for corner in itertools.product((0, 1), repeat=len(place)):
        index: list[int] = []
        weight = 1.0
        for bit, where, n in zip(corner, place, image.shape[1:], strict=True):
            low = min(max(math.floor(where), 0), n - 1)
            index.append(min(low + bit, n - 1))
            share = min(max(where, 0.0), n - 1) - low
            weight *= share if bit else 1 - share
        total += weight * image.moveaxis(0, -1)[tuple(index)]
    return total


@pytest.mark.parametrize("stride", [2, 3, 4])
@pytest.mark.parametrize("size", [(9,), (8, 5), (5, 4, 7)])
def test_none_is_linear_resampling_and_a_matrix(size: tuple[int, ...], stride: int) -> None:
    embed = Resampling(2, 3, spatial_dims=len(size), stride=stride).double()
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    out = embed.output_size(size)
    assert out == tuple(math.ceil(n / stride) for n in size)
    y = embed(x)
    for token in itertools.product(*map(range, out)):
        place = tuple((i + 0.5) * n / m - 0.5 for i, n, m in zip(token, size, out, strict=True))
        want = embed.proj.weight.flatten(1) @ sampled(x[0], place) + embed.proj.bias
        torch.testing.assert_close(y[(0, slice(None), *token)], want)


def test_none_at_stride_two_averages_patches() -> None:
    embed, x = Resampling(2, 3), torch.randn(1, 2, 8, 6)
    torch.testing.assert_close(embed(x), embed.proj(torch.nn.functional.avg_pool2d(x, 2)))


@pytest.mark.parametrize("size", [(5,), (3, 4), (2, 3, 1)])
def test_coordinates_go_through_two_layers(size: tuple[int, ...]) -> None:
    position = CoordMLP(6, spatial_dims=len(size)).double()
    added = position(torch.zeros(2, 6, *size, dtype=torch.float64))
    assert added.shape == (1, 6, *size)
    for token in itertools.product(*map(range, size)):
        p = torch.tensor([2 * (i + 0.5) / n - 1 for i, n in zip(token, size, strict=True)], dtype=torch.float64)
        hidden = position.fc1.weight @ p + position.fc1.bias
        hidden = torch.where(hidden > 0, hidden, 0.01 * hidden)
        want = position.fc2.weight @ hidden + position.fc2.bias
        torch.testing.assert_close(added[(0, slice(None), *token)], want)


def test_sums_of_tokens_and_position() -> None:
    x = torch.randn(2, 3, 12, 9)
    with_mlp, without = CoordMLPEmbedding(3, 8, stride=4), Resampling(3, 8, stride=4)
    without.load_state_dict({k: v for k, v in with_mlp.state_dict().items() if k.startswith("proj")})
    torch.testing.assert_close(with_mlp(x) - without(x), with_mlp.position(without(x)).expand(2, -1, -1, -1))
    conv = CoordMLPConv(3, 8, kernel_size=7, stride=4, padding=2)
    torch.testing.assert_close(conv(x), conv.proj(x) + conv.position(conv.proj(x)))


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize(("stride", "kernel", "padding"), [(4, 7, 2), (2, 3, 1), (1, 1, 0)])
def test_overlapping_patches_are_poolformers(spatial_dims: int, stride: int, kernel: int, padding: int) -> None:
    embed = overlapping(2, 4, spatial_dims=spatial_dims, stride=stride)
    twin = ConvEmbedding(2, 4, spatial_dims=spatial_dims, kernel_size=kernel, stride=stride, padding=padding)
    twin.load_state_dict(embed.state_dict())
    x = torch.randn(1, 2, *(16, 12, 8)[:spatial_dims])
    assert torch.equal(embed(x), twin(x))


def test_patches_that_do_not_overlap_see_each_pixel_once() -> None:
    embed = non_overlapping(1, 1, stride=(2, 3), bias=False)
    torch.nn.init.ones_(embed.proj.weight)
    x = torch.rand(1, 1, 5, 7, requires_grad=True)
    embed(x).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones_like(x))


def added(embedding: str, base: str, spatial_dims: int = 2) -> int:
    """Parameters that a PoolFormer-S12 with one embedding has more than with the other."""
    with torch.device("meta"):
        models = [create_model("metaformer_s12", embedding=e, spatial_dims=spatial_dims) for e in (embedding, base)]
    counts = [sum(p.numel() for p in model.parameters()) for model in models]
    return counts[0] - counts[1]


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_parameters_in_the_studys_frame(spatial_dims: int) -> None:
    mlp = sum(16 * (spatial_dims + 1) + 17 * width for width in WIDTHS)
    assert added("coord_mlp", "none", spatial_dims) == mlp
    assert added("coord_mlp+conv", "conv", spatial_dims) == mlp
    pairs = list(zip((3, *WIDTHS), WIDTHS, strict=False))
    kernels = [7**spatial_dims, *[3**spatial_dims] * 3]
    saved = sum((kernel - 1) * a * b for kernel, (a, b) in zip(kernels, pairs, strict=True))
    assert added("conv", "none", spatial_dims) == saved
    assert added("conv", "overlap", spatial_dims) == 0


def test_bad_options() -> None:
    with pytest.raises(UserError, match="at least one hidden channel"):
        CoordMLP(4, hidden=0)
    with pytest.raises(UserError, match="'none' stride"):
        Resampling(3, 4, stride=0)
    with pytest.raises(UserError, match="at least one position"):
        Resampling(3, 4).output_size((0, 4))
