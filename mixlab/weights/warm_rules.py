"""Pairs of mixers whose weights mean the same, or can be made to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mixlab.mixers import Mixer
from mixlab.weights.conversions import Entries, Made, register_warm_start, same_names
from mixlab.weights.kernels import energy, fitted, same_dilation

HEADS = ("head_dim", "qkv_bias", "proj_bias")
WINDOW = ("kernel_size", "dilation", "bias")


@register_warm_start("attention", "local_attention", inherits=HEADS)
@register_warm_start("local_attention", "attention", inherits=HEADS)
def _attention(old: Mixer, new: Mixer) -> Entries:
    """Queries, keys, values and output projection mean the same, whatever the window."""
    return same_names(old, new)


@register_warm_start("conv", "sep_conv", inherits=WINDOW)
def _depthwise(old: Any, new: Any) -> Entries:
    """Each channel's own filter: the diagonal of the dense kernel, and the bias."""
    same_dilation(old.conv, new.conv)
    dense: Tensor = old.conv.weight.detach()
    diagonal = dense.diagonal(dim1=0, dim2=1).movedim(-1, 0).unsqueeze(1)  # (C, 1, *k)
    said = f"the diagonal of the dense kernel ({energy(diagonal, dense):.1%} of its squared weights)"
    return _convolution(old, new, diagonal, said)


@register_warm_start("sep_conv", "conv", inherits=WINDOW)
def _dense(old: Any, new: Any) -> Entries:
    """The depthwise kernel on the diagonal of a dense one computes the same."""
    same_dilation(old.conv, new.conv)
    depthwise: Tensor = old.conv.weight.detach()  # (C, 1, *k)
    dense = depthwise.new_zeros(len(depthwise), len(depthwise), *depthwise.shape[2:])
    channels = torch.arange(len(depthwise), device=depthwise.device)
    dense[channels, channels] = depthwise[:, 0]
    return _convolution(old, new, dense, "the depthwise kernel on the diagonal, zeros between channels")


def _convolution(old: Any, new: Any, weight: Tensor, said: str) -> Entries:
    fits, how = fitted(weight, tuple(new.conv.kernel_size))
    made = {"conv.weight": Made(fits, f"{said}; {how}" if how else said)}
    if old.conv.bias is not None and new.conv.bias is not None:
        made["conv.bias"] = Made(old.conv.bias.detach())
    return made


@register_warm_start("random_mixing", "spatial_fc")
def _learned(old: Any, new: Any) -> Entries:
    """The random average of all positions, from now on learned."""
    return {"fc.weight": Made(old.random_matrix.detach(), "the random matrix", ("random_matrix",))}


@register_warm_start("spatial_fc", "random_mixing")
def _frozen(old: Any, new: Any) -> Entries:
    """The learned matrix, from now on frozen."""
    return {"random_matrix": Made(old.fc.weight.detach(), "the learned matrix, frozen", ("fc.weight",))}
