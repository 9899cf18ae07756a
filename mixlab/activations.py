"""Activations by name: ``gelu`` (exact erf form), ``relu``, ``silu``, ``squared_relu``, ``star_relu``."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixlab.ops import Pointwise, pointwise
from mixlab.registry import Registry

ACTIVATIONS: Registry[nn.Module] = Registry("activation")
for _name, _class in {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}.items():
    ACTIVATIONS.register(_name)(_class)


class _SquaredReLU(torch.autograd.Function):
    """``relu(x)²`` that keeps its input alone and works in place where it can: half the passes over memory."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return F.relu(x).square_()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted
            return 2.0 * F.relu(x) * grad
        return F.relu(x).mul_(grad).mul_(2.0)


def squared_relu(x: Tensor) -> Tensor:
    """``relu(x)²``."""
    if torch.compiler.is_compiling():
        return F.relu(x).square()
    return _SquaredReLU.apply(x) if x.requires_grad else F.relu(x).square_()


@ACTIVATIONS.register("squared_relu")
class SquaredReLU(nn.Module):
    """``relu(x)²``, of the MLP head of ConvFormer and CAFormer (arXiv:2210.13452)."""

    def forward(self, x: Tensor) -> Tensor:
        return squared_relu(x)


@ACTIVATIONS.register("star_relu")
class StarReLU(nn.Module):
    """``s · relu(x)² + b`` with two learned scalars.

    Args:
        scale, bias: where ``s`` and ``b`` start. The paper derives 0.8944 and -0.4472 (zero mean and unit variance for
            a standard normal input); the official code starts at 1 and 0.

    Source: Yu et al., MetaFormer Baselines for Vision (arXiv:2210.13452), section 2.1.
    """

    def __init__(self, *, scale: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), scale))
        self.bias = nn.Parameter(torch.full((1,), bias))

    def forward(self, x: Tensor) -> Tensor:
        return squared_relu(x) * self.scale + self.bias


def activated(act: nn.Module, x: Tensor) -> Tensor:
    """``act(x)`` for an ``x`` that nobody else needs: in place where no gradient will ask for it."""
    if type(act) is nn.GELU and not (torch.is_grad_enabled() or torch.compiler.is_compiling() or is_watched(act)):
        return torch.ops.aten.gelu_(x, approximate=act.approximate)
    return act(x)


def is_watched(module: nn.Module) -> bool:
    """The module has hooks, so that a short cut past its ``forward`` would be seen."""
    forward = module._forward_hooks or module._forward_pre_hooks
    return bool(forward or module._backward_hooks or module._backward_pre_hooks)


def linear_after(act: nn.Module, x: Tensor, linear: Pointwise) -> Tensor:
    """``linear(act(x))`` for a map ``(B, C, *spatial)`` that nobody else needs.

    Where the matrix is smaller than the map, the scale and shift of a StarReLU go into it, which saves passes over the
    map forward and backward: ``W (s r + b) = (s W) r + b (W 1)``.
    """
    if not isinstance(act, StarReLU) or torch.compiler.is_compiling() or x.numel() < linear.weight.numel():
        return linear(activated(act, x))
    if type(linear) is not Pointwise or is_watched(act) or is_watched(linear):
        return linear(act(x))
    shift = linear.weight.sum(1) * act.bias
    shift = shift if linear.bias is None else shift + linear.bias
    return pointwise(squared_relu(x), linear.weight * act.scale, shift)
