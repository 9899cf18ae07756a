"""Exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of the model whose weights and buffers follow the model's.

    In the first updates the decay is at most ``(1 + n) / (10 + n)``, or a short training would end near the initial
    weights.
    """
    copy = AveragedModel(model, multi_avg_fn=_follow(decay), use_buffers=True)
    copy.requires_grad_(False)
    return copy.eval()


def _follow(decay: float) -> Callable[[Tensors, Tensors, Any], None]:
    @torch.no_grad()
    def update(averages: Tensors, currents: Tensors, count: Tensor | int) -> None:
        number = int(count)
        keep = min(decay, (1 + number) / (10 + number))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(list(averages), list(currents), 1 - keep)
        else:  # counters such as batch norm's
            for average, current in zip(averages, currents, strict=True):
                average.copy_(current)

    return update
