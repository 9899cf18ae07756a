"""Small constructions of every mixer, for tests that run over the registry."""

from __future__ import annotations

from typing import Any

from mixlab.mixers import MIXERS, Mixer
from tests.mixers.naive import OPTIONS

PRIMES = {1: (11,), 2: (7, 5), 3: (5, 3, 7)}  # distinct in each case, so that swapped axes cannot pass
SMALL = {1: (5,), 2: (3, 4), 3: (2, 3, 4)}
DIM = 6


def make(name: str, spatial_dims: int, *, grid: tuple[int, ...] | None = None, **options: Any) -> Mixer:
    """A mixer of width 6 with small heads; one that needs a grid gets it."""
    kwargs: dict[str, Any] = {"spatial_dims": spatial_dims, **OPTIONS.get(name, {}), **options}
    if getattr(MIXERS[name], "needs_grid", False):
        kwargs["grid_size"] = grid or PRIMES[spatial_dims]
    return MIXERS[name](DIM, **kwargs)


def windowed() -> list[str]:
    """Mixers with a kernel size."""
    return [name for name in MIXERS if "kernel_size" in MIXERS.options(name)]
