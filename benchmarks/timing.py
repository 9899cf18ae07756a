"""What the benchmarks share."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Calls = Mapping[str, tuple[Callable[[], Tensor], tuple[Tensor, ...]]]
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Let glibc keep what is freed: fresh pages cost all alike, and on some virtual machines more than the work."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 32 << 20)  # its maximum
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def cpu_seconds(call: Callable[[], Tensor], inputs: tuple[Tensor, ...], backward: bool) -> float:
    """CPU seconds of one call, with the gradients of ``inputs`` when ``backward``, the output's off the clock."""
    start = time.process_time()
    out = call()
    taken = time.process_time() - start
    if not backward:
        return taken
    gradient = torch.ones_like(out)
    start = time.process_time()
    torch.autograd.grad(out, inputs, gradient)
    return taken + time.process_time() - start


def block_seconds(call: Callable[[], Tensor], inputs: tuple[Tensor, ...], backward: bool, at_least: float) -> float:
    """CPU seconds of a call: the median of as many in a row as last ``at_least`` seconds."""
    taken: list[float] = []
    while not taken or sum(taken) < at_least:
        taken.append(cpu_seconds(call, inputs, backward))
    return statistics.median(taken)


def side_by_side(calls: Calls, repeats: int, at_least: float = 0.4) -> dict[tuple[str, bool], float]:
    """Median milliseconds by (name, with backward): every repeat measures all calls in turn, the first one warms up."""
    times: dict[tuple[str, bool], list[float]] = {}
    for repeat in range(repeats + 1):
        for name, (call, inputs) in calls.items():
            for backward in (False, True):
                taken = block_seconds(call, inputs, backward, at_least)
                if repeat:
                    times.setdefault((name, backward), []).append(1e3 * taken)
    return {key: statistics.median(found) for key, found in times.items()}
