"""Norms on maps ``(B, C, *spatial)``, by name.

``group_norm`` is PoolFormer's norm (one group: mean and variance over channels *and* positions of a sample),
``layer_norm`` works on the channels of each position, ``batch_norm`` is the usual one. All take ``eps``; the first two
can do without a bias.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixlab.cost import Cost, Size, normalisation
from mixlab.ops.passes import group_norm
from mixlab.registry import Part, Registry


class Norm(nn.Module):
    """Base of the norms with one affine pair a channel."""

    def __init__(self, dim: int, *, spatial_dims: int = 2, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def extra_repr(self) -> str:
        return f"{self.dim}, eps={self.eps}, bias={self.bias is not None}"


NORMS: Registry[nn.Module] = Registry("norm", "mixlab.norms")


@NORMS.register("group_norm")
class GroupNorm(Norm):
    """GroupNorm with one group: statistics over channels and positions of each sample."""

    def forward(self, x: Tensor) -> Tensor:
        return group_norm(x, self.weight, self.bias, self.eps)


@NORMS.register("layer_norm")
class LayerNorm(Norm):
    """LayerNorm over the channels of each position."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.movedim(1, -1), (self.dim,), self.weight, self.bias, self.eps).movedim(-1, 1)


_BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


@NORMS.register("batch_norm")
def batch_norm(dim: int, *, spatial_dims: int = 2, eps: float = 1e-5, momentum: float = 0.1) -> nn.Module:
    """BatchNorm over samples and positions."""
    return _BATCH_NORM[spatial_dims](dim, eps=eps, momentum=momentum)


def build_norm(part: str | Mapping[str, Any] | Part | None, dim: int, spatial_dims: int) -> nn.Module:
    """The norm that a part names, or the identity for None."""
    return nn.Identity() if part is None else NORMS.build(part, dim, spatial_dims=spatial_dims)


def norm_cost(norm: nn.Module, size: Size) -> Cost:
    """Cost of a norm of this registry, a torch norm, or an identity."""
    if isinstance(norm, nn.Identity):
        return Cost()
    parameters = sum(p.numel() for p in norm.parameters())
    dim: int = norm.dim if isinstance(norm, Norm) else norm.num_features  # type: ignore[assignment]
    return normalisation(dim, math.prod(size), parameters=parameters)
