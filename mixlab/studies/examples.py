"""Example images for the report."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

COUNT, PIXELS = 24, 96


def example_images(split: Any) -> tuple[NDArray[np.uint8], list[str]]:
    """Up to 24 images spread over a split, at most 96 px wide and high, and their ids.

    Returns:
        Images ``(N, H, W)``, or ``(N, H, W, 3)`` for three channels; of a volume the middle slice, of a line a row.
    """
    indices = np.linspace(0, len(split) - 1, min(COUNT, len(split))).round().astype(int)
    pictures = torch.stack([as_picture(split[int(i)][0]) for i in indices])  # (N, C, H, W)
    height, width = pictures.shape[2:]
    scale = min(1.0, PIXELS / max(height, width))
    if scale < 1.0:
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        pictures = F.interpolate(pictures, size=size, mode="area")
    values = (pictures.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return values if values.shape[3] == 3 else values[..., 0], [split.ids[int(i)] for i in indices]


def as_picture(image: torch.Tensor) -> torch.Tensor:
    """``(C, *spatial)`` as ``(C, H, W)`` with one channel or three."""
    image = image.float()
    if image.ndim == 4:
        image = image[:, image.shape[1] // 2]
    elif image.ndim == 2:
        image = image.unsqueeze(1)
    return image if image.shape[0] == 3 else image[:1]
