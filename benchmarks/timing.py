"""What the benchmarks share."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor


def cpu_seconds(call: Callable[[], Tensor], inputs: tuple[Tensor, ...], backward: bool) -> float:
    """CPU seconds of one call, with the gradients of ``inputs`` when ``backward``."""
    start = time.process_time()
    out = call()
    if backward:
        torch.autograd.grad(out, inputs, torch.ones_like(out))
    return time.process_time() - start
