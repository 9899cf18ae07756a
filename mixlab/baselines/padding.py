"""Images of any size for a network that halves its maps: zeros at the end of each axis, cut off again."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def padded(x: Tensor, multiple: int) -> Tensor:
    """``(B, C, *spatial)`` with as many zeros at the end of each axis as make its size a multiple."""
    missing = [-n % multiple for n in x.shape[2:]]
    return F.pad(x, [zeros for m in reversed(missing) for zeros in (0, m)]) if any(missing) else x


def cropped(x: Tensor, size: Sequence[int]) -> Tensor:
    """The part of ``size`` at the beginning of each axis."""
    for axis, n in enumerate(size, start=2):
        x = x.narrow(axis, 0, n)
    return x
