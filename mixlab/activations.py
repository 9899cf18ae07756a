"""Activations by name: ``gelu`` (exact erf form), ``relu``, ``silu``, ``squared_relu``, ``star_relu``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixlab.registry import Registry

ACTIVATIONS: Registry[nn.Module] = Registry("activation")
for _name, _class in {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}.items():
    ACTIVATIONS.register(_name)(_class)


@ACTIVATIONS.register("squared_relu")
class SquaredReLU(nn.Module):
    """``relu(x)²``, of the MLP head of ConvFormer and CAFormer (arXiv:2210.13452)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).square()


@ACTIVATIONS.register("star_relu")
class StarReLU(nn.Module):
    """``s · relu(x)² + b`` with two learned scalars.

    Args:
        scale, bias: where ``s`` and ``b`` start. The paper derives 0.8944 and -0.4472 (zero mean and unit variance for a
            standard normal input); the official code starts at 1 and 0.

    Source: Yu et al., MetaFormer Baselines for Vision (arXiv:2210.13452), section 2.1.
    """

    def __init__(self, *, scale: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), scale))
        self.bias = nn.Parameter(torch.full((1,), bias))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.bias, F.relu(x).square(), self.scale)
