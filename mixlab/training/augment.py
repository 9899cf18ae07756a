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


Masked = tuple[Tensor, Tensor | None]
"""Images and their masks, None where they have none."""


def random_affine(x: Tensor, std: float, mask: Tensor | None = None, *, outside: float = 0.0) -> Masked:
    """Map each image by its own random matrix: the identity plus N(0, ``std``) on every entry, shifts included.

    Coordinates run from -1 to 1 along each axis; what lies outside the image is 0 (so augment before normalising).

    Args:
        x: batch of shape ``(B, C, *spatial)`` with one, two or three spatial axes.
        std: standard deviation of the noise.
        mask: index maps ``(B, *spatial)`` or planes ``(B, K, *spatial)``, mapped alike; each pixel takes the value of
            the nearest one.
        outside: the mask's value where there is no image.
    """
    batch, dims = x.shape[0], x.ndim - 2
    identity = torch.eye(dims, dims + 1, device=x.device, dtype=x.dtype)
    theta = identity + std * torch.randn(batch, dims, dims + 1, device=x.device, dtype=x.dtype)
    # torch samples in 2D and 3D only: a line is an image of height 1 whose second axis stays as it is.
    if dims == 1:
        flat = torch.zeros(batch, 2, 3, device=x.device, dtype=x.dtype)
        flat[:, 0, 0], flat[:, 0, 2], flat[:, 1, 1] = theta[:, 0, 0], theta[:, 0, 1], 1.0
        theta = flat
    size = [batch, 1, *([1] * (dims == 1)), *x.shape[2:]]
    grid = F.affine_grid(theta, size, align_corners=False)
    mapped = _sample(x, grid, "bilinear")
    if mask is None:
        return mapped, None
    planes = mask if mask.ndim == x.ndim else mask.unsqueeze(1)
    # sampled as the difference to ``outside``, because what lies outside is sampled as 0
    moved = _sample(planes.to(x.dtype) - outside, grid, "nearest") + outside
    return mapped, moved.reshape(mask.shape).to(mask.dtype)


def _sample(x: Tensor, grid: Tensor, mode: str) -> Tensor:
    """``(B, C, *spatial)`` at the places of ``grid``, 0 outside."""
    flat = x.unsqueeze(2) if x.ndim == 3 else x
    return F.grid_sample(flat, grid, mode=mode, align_corners=False).reshape(x.shape)


def random_flips(x: Tensor, axes: Sequence[int], mask: Tensor | None = None) -> Masked:
    """Flip each image of ``(B, C, *spatial)`` with probability one half along each of ``axes`` (0 is the first), and
    its mask, ``(B, *spatial)`` or ``(B, K, *spatial)``, alike."""
    first = 2 if mask is None or mask.ndim == x.ndim else 1
    for axis in axes:
        chosen = torch.rand(x.shape[0], device=x.device) < 0.5
        x = torch.where(chosen.reshape((-1,) + (1,) * (x.ndim - 1)), x.flip(axis + 2), x)
        if mask is not None:
            mask = torch.where(chosen.reshape((-1,) + (1,) * (mask.ndim - 1)), mask.flip(axis + first), mask)
    return x, mask


class Augment(nn.Module):
    """Random flips and affine map; the identity in evaluation mode.

    Args:
        affine_std: standard deviation of the affine map's noise; 0 for none.
        flips: axes that may be mirrored.
        outside: value of masks where there is no image.
    """

    def __init__(self, affine_std: float, flips: Sequence[int], outside: float = 0.0) -> None:
        super().__init__()
        self.affine_std = affine_std
        self.flips = tuple(flips)
        self.outside = outside

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Masked:
        """Images ``(B, C, *spatial)`` and their masks."""
        if self.training:
            x, mask = random_flips(x, self.flips, mask)
            if self.affine_std > 0:
                return random_affine(x, self.affine_std, mask, outside=self.outside)
        return x, mask
