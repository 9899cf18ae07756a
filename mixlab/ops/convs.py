"""What convolutions of one, two and three axes need."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

CONVS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
"""The one table of convolution classes by number of spatial axes."""

_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def channels_last(x: Tensor) -> Tensor:
    """The map ``(B, C, *spatial)`` with its channels innermost in memory, where torch has a format for it (2D, 3D)."""
    return x.contiguous(memory_format=_FORMATS[x.ndim]) if x.ndim in _FORMATS else x
