"""Convolutional patch embeddings."""

from __future__ import annotations

import pytest
import torch

from mixlab.embeddings.conv import ConvEmbedding
from mixlab.errors import UserError


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_patches_padded_at_the_end_lose_no_pixel(spatial_dims: int) -> None:
    size = (7, 5, 3)[:spatial_dims]
    embed = ConvEmbedding(2, 4, spatial_dims=spatial_dims, kernel_size=2, stride=2, padding="end")
    x = torch.randn(1, 2, *size, requires_grad=True)
    y = embed(x)
    assert tuple(y.shape[2:]) == embed.output_size(size) == (4, 3, 2)[:spatial_dims]
    y.sum().backward()
    assert x.grad is not None
    assert (x.grad.abs() > 0).all()
    even = torch.randn(1, 2, *(n + 1 for n in size))
    torch.testing.assert_close(embed(even), embed.proj(even))  # nothing to pad


def test_one_pixel_is_a_token() -> None:
    embed = ConvEmbedding(1, 4, kernel_size=2, stride=2, padding="end")
    assert embed(torch.randn(1, 1, 1, 1)).shape == (1, 4, 1, 1)


def test_cost_follows_the_padded_size() -> None:
    embed = ConvEmbedding(2, 4, kernel_size=2, stride=2, padding="end")
    assert embed.cost((7, 5)).macs_needed == 4 * 3 * 2 * 2 * 2 * 4


def test_bad_options() -> None:
    with pytest.raises(UserError, match="'end', got 'same'"):
        ConvEmbedding(1, 4, padding="same")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="at least 3 positions"):
        ConvEmbedding(1, 4, kernel_size=7, stride=4, padding=2).output_size((2, 9))
