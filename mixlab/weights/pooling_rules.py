"""Mixers that can start as pooling: the mean of the window's neighbours inside the image, minus the position."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mixlab.errors import expected
from mixlab.ops.windows import per_axis
from mixlab.weights.conversions import Target, register_pooling_start
from mixlab.weights.kernels import by


@register_pooling_start("local_attention", inherits=("kernel_size", "subtract_input"))
def _uniform(new: Any, target: Target) -> tuple[dict[str, Tensor], str]:
    """Zero queries weigh every neighbour inside the image alike; values and output are the identity.

    Keys keep their random start: with zero keys as well no gradient would reach either.
    """
    if any(d != 1 for d in new.dilation):
        raise expected("init='pooling' dilation", "1, as pooling has it", new.dilation)
    if getattr(new, "slopes", 0):
        raise expected(
            "init='pooling' slopes", "none, as they weigh neighbours differently", new.slopes, "slopes=False"
        )
    if getattr(new, "border", "clip") != "clip":
        raise expected("init='pooling' border", "'clip', as pooling has it", new.border)
    minus = " minus the position" if new.subtract_input else ""
    return _identity_attention(new), f"the mean of its {by(new.kernel_size)} window{minus}{_other(new, target)}"


@register_pooling_start("attention")
def _global_mean(new: Any, target: Target) -> tuple[dict[str, Tensor], str]:
    """As for local attention, over the whole map; it cannot subtract its input."""
    return _identity_attention(new), "the mean of the whole map; it does not subtract the position, as pooling does"


def _identity_attention(new: Any) -> dict[str, Tensor]:
    qkv: Tensor = new.qkv.weight.detach().clone()  # (3 C, C)
    dim = qkv.shape[1]
    eye = torch.eye(dim, dtype=qkv.dtype, device=qkv.device)
    qkv[:dim], qkv[2 * dim :] = 0, eye
    values = {"qkv.weight": qkv, "proj.weight": eye.clone()}
    biases = {"qkv.bias": new.qkv.bias, "proj.bias": new.proj.bias}
    return values | {k: torch.zeros_like(b) for k, b in biases.items() if b is not None}


@register_pooling_start("conv")
@register_pooling_start("sep_conv")
def _mean_kernel(new: Any, target: Target) -> tuple[dict[str, Tensor], str]:
    """A kernel of equal weights, less one at the centre where pooling subtracts. Zeros outside the image count."""
    if any(d != 1 for d in new.conv.dilation):
        raise expected("init='pooling' dilation", "1, as pooling has it", tuple(new.conv.dilation))
    weight = torch.zeros_like(new.conv.weight)
    window = torch.full(new.kernel_size, 1.0 / weight[0, 0].numel(), dtype=weight.dtype, device=weight.device)
    if target.subtract_input:
        window[tuple(k // 2 for k in new.kernel_size)] -= 1
    channels = torch.arange(len(weight), device=weight.device)
    weight[channels, channels if new.groups == 1 else 0] = window
    values = {"conv.weight": weight}
    if new.conv.bias is not None:
        values["conv.bias"] = torch.zeros_like(new.conv.bias)
    minus = " minus the position" if target.subtract_input else ""
    said = f"the mean of its {by(new.kernel_size)} window{minus}; at borders it counts zeros, pooling does not"
    return values, said + _other(new, target)


@register_pooling_start("spatial_fc", inherits=())
def _pooling_matrix(new: Any, target: Target) -> tuple[dict[str, Tensor], str]:
    """Pooling is a matrix over the positions of a grid."""
    grid: tuple[int, ...] = new.grid_size
    kernel = per_axis(target.kernel_size, len(grid), "pooling kernel_size")
    weight = torch.ones(1, 1, dtype=new.fc.weight.dtype, device=new.fc.weight.device)
    for n, k in zip(grid, kernel, strict=True):
        at = torch.arange(n, device=weight.device)
        near = ((at[:, None] - at).abs() <= k // 2).to(weight)
        weight = torch.kron(weight, near / near.sum(1, keepdim=True))
    if target.subtract_input:
        weight = weight - torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
    minus = " minus the position" if target.subtract_input else ""
    return {"fc.weight": weight}, f"the mean of a {by(kernel)} window{minus}"


def _other(new: Any, target: Target) -> str:
    """What differs from the pooling that is replaced."""
    kernel = per_axis(target.kernel_size, len(new.kernel_size), "pooling kernel_size")
    said = []
    if target.replaces and tuple(new.kernel_size) != kernel:
        said.append(f"the pooling that it replaces has {by(kernel)}")
    if target.replaces and getattr(new, "subtract_input", target.subtract_input) != target.subtract_input:
        said.append(f"that pooling has subtract_input={target.subtract_input}")
    return "".join(f"; {s}" for s in said)
