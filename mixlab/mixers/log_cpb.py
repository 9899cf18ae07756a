"""The continuous position bias of TransNeXt's attentions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixlab.cost import Cost, Size, linear
from mixlab.ops.log_cpb import log_coordinates, table_entries, table_index
from mixlab.ops.pooled_grid import spare_mask
from mixlab.ops.windows import PerAxis, per_axis

HIDDEN = 512
START_OF_TEMPERATURE = math.log(math.exp(1 / 0.24) - 1)  # softplus of it is 1 / 0.24


class LogCPB(nn.Module):
    """A bias per head for every key and query: two linear layers on their log-spaced coordinate difference.

    The layers run once on each difference that occurs (:mod:`mixlab.ops.log_cpb`).

    Args:
        heads: biases for each pair.
        spatial_dims: coordinates of a difference.
        pretrain_size: grid at which a coordinate difference of 1 is the far end; None for the grid at hand.

    Source: log-spaced CPB of Swin V2 (arXiv:2111.09883), as in TransNeXt (arXiv:2311.17132).
    """

    no_decay = ("fc1.weight", "fc2.weight")  # as in TransNeXt's training

    def __init__(self, heads: int, spatial_dims: int, pretrain_size: PerAxis | None, where: str) -> None:
        super().__init__()
        self.heads, self.spatial_dims = heads, spatial_dims
        self.pretrain_size = (
            None if pretrain_size is None else per_axis(pretrain_size, spatial_dims, f"{where} pretrain_size")
        )
        self.fc1 = nn.Linear(spatial_dims, HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, heads)

    def forward(self, size: Size, pooled: Size | None = None) -> Tensor:
        """(heads, P, N) for queries of ``size`` and keys that are bins of ``pooled``, or positions; raster order."""
        weight, measure = self.fc1.weight, self.pretrain_size or size
        coordinates = log_coordinates(size, pooled, measure, dtype=weight.dtype, device=weight.device)
        table = self.fc2(F.relu(self.fc1(coordinates)))  # (T, heads)
        index = table_index(size, pooled, device=weight.device)
        if torch.compiler.is_compiling():
            bias = table.t()[:, index]
        else:  # eager, two times faster
            bias = table.t().index_select(1, index.flatten()).unflatten(1, index.shape)
        if pooled is not None and torch.compiler.is_exporting():
            bias = bias + spare_mask(pooled, bias)
        return bias

    def cost(self, size: Size, pooled: Size | None = None) -> Cost:
        entries = table_entries(size, pooled)
        act = Cost(other_ops=HIDDEN * entries, activations=HIDDEN * entries)
        return linear(self.spatial_dims, HIDDEN, entries) + act + linear(HIDDEN, self.heads, entries)


def temperature(heads: int) -> nn.Parameter:
    """(heads, 1, 1): a temperature ``softplus(T)`` that starts at 1 / 0.24."""
    return nn.Parameter(torch.full((heads, 1, 1), START_OF_TEMPERATURE))


def small_normal(*shape: int, std: float = 0.02) -> nn.Parameter:
    """A parameter that starts as a truncated normal."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=std))
