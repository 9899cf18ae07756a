"""Linear interpolation of maps, the one way in which mixlab changes the size of a map without parameters."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}
"""torch's names of it, by number of spatial axes."""


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """``(B, C, *spatial)`` to ``(B, C, *size)``, linear on each axis, with pixels as areas (``align_corners=False``);
    the map itself where it has that size."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, size=list(size), mode=INTERPOLATION[x.ndim - 2], align_corners=False)
