"""Normalisation and augmentation of whole batches, on the device, in 1D, 2D and 3D."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Normalise(nn.Module):
    """``(x - mean) / std`` per channel for ``x`` of shape ``(B, C, *spatial)`` in [0, 1].

    A channel that is constant over the training split has no deviation and is only shifted.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], spatial_dims: int) -> None:
        super().__init__()
        shape = (1, len(mean)) + (1,) * spatial_dims
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(shape))
        deviation = torch.tensor(std, dtype=torch.float32).reshape(shape)
        self.register_buffer("std", torch.where(deviation > 0, deviation, torch.ones_like(deviation)))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def random_affine(x: Tensor, std: float) -> Tensor:
    """Map each image by its own random matrix: the identity plus N(0, ``std``) on every entry, shifts included.

    Coordinates run from -1 to 1 along each axis; what lies outside the image is 0 (so augment before normalising).

    Args:
        x: batch of shape ``(B, C, *spatial)`` with one, two or three spatial axes.
        std: standard deviation of the noise.
    """
    batch, dims = x.shape[0], x.ndim - 2
    identity = torch.eye(dims, dims + 1, device=x.device, dtype=x.dtype)
    theta = identity + std * torch.randn(batch, dims, dims + 1, device=x.device, dtype=x.dtype)
    if dims > 1:
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)
    # torch samples in 2D and 3D only: a line is an image of height 1 whose second axis stays as it is.
    flat = torch.zeros(batch, 2, 3, device=x.device, dtype=x.dtype)
    flat[:, 0, 0], flat[:, 0, 2], flat[:, 1, 1] = theta[:, 0, 0], theta[:, 0, 1], 1.0
    image = x.unsqueeze(2)
    grid = F.affine_grid(flat, list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, align_corners=False).squeeze(2)


def random_flips(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Flip each image of ``(B, C, *spatial)`` with probability one half along each of ``axes`` (0 is the first)."""
    for axis in axes:
        chosen = torch.rand(x.shape[0], device=x.device) < 0.5
        shape = (-1,) + (1,) * (x.ndim - 1)
        x = torch.where(chosen.reshape(shape), x.flip(axis + 2), x)
    return x


class Augment(nn.Module):
    """Random affine map and flips; the identity in evaluation mode."""

    def __init__(self, affine_std: float, flips: Sequence[int]) -> None:
        super().__init__()
        self.affine_std = affine_std
        self.flips = tuple(flips)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        x = random_flips(x, self.flips)
        return random_affine(x, self.affine_std) if self.affine_std > 0 else x
