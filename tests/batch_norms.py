"""Batch norms as training leaves them, for tests of the evaluation mode."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def in_evaluation(module: M) -> M:
    """Evaluation mode, and batch norms whose statistics, weights and biases are not those of the start."""
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            with torch.no_grad():
                norm.running_mean.normal_(std=0.3)
                norm.running_var.uniform_(0.5, 2.0)
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.normal_(std=0.3)
    return module.eval()
