"""Another patch embedding in a published model: the stage's stride stays unless another one is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mixlab.embeddings.base import EMBEDDINGS
from mixlab.embeddings.patches import overlap_of
from mixlab.errors import expected
from mixlab.ops.windows import PerAxis
from mixlab.registry import Part

CONVOLUTIONS = ("conv", "coord_mlp+conv")
"""Embeddings that keep the published convolution of a stage where it has one."""


def choose_embeddings(choice: Any, stem_stride: PerAxis | None, published: Sequence[Part]) -> list[Part]:
    """The embeddings of all stages.

    Args:
        choice: a part of :data:`EMBEDDINGS` for all stages, a list of one per stage, or None for the published ones.
            ``conv`` and ``coord_mlp+conv`` without options are the published convolution; where a stage has none, a
            convolution with overlapping patches. All take the stage's stride unless they name their own.
        stem_stride: stride of the first stage; None for the published one.
        published: the stages' embeddings.

    Raises:
        UserError: an unknown part, a list of another length, or a stem whose stride is no option of it.
    """
    one = choice is None or isinstance(choice, str | Mapping | Part)
    choices = [choice] * len(published) if one else list(choice)
    if len(choices) != len(published):
        raise expected("model embedding", f"one part, or {len(published)} of them, one a stage", choice, "'conv'")
    strides = [stem_stride, *[None] * (len(published) - 1)]
    return [_choose(c, s, p) for c, s, p in zip(choices, strides, published, strict=True)]


def _choose(choice: Any, stride: PerAxis | None, published: Part) -> Part:
    if choice is None:
        return published if stride is None else with_stride(published, stride)
    part = Part.of(choice)
    known = EMBEDDINGS.options(part.name)
    own = part.options.get("stride") if stride is None else stride
    if part.name in CONVOLUTIONS:
        base = published if published.name in CONVOLUTIONS else Part("conv", overlap_of(stride_of(published)))
        base = base if own is None else with_stride(base, own)
        kept = {k: v for k, v in base.options.items() if k in known}
        return Part(part.name, {**kept, **part.options, **({} if own is None else {"stride": own})})
    if "stride" in known:
        return part.with_options(stride=stride_of(published) if own is None else own)
    return part if stride is None else with_stride(part, stride)


def with_stride(part: Part, stride: PerAxis) -> Part:
    """The same embedding at another stride; a convolution keeps its kind of patches (overlapping, or side by side).

    Raises:
        UserError: the embedding has no option ``stride``.
    """
    known = EMBEDDINGS.options(part.name)
    if "stride" not in known:
        fitting = [name for name in EMBEDDINGS if "stride" in EMBEDDINGS.options(name)]
        raise expected("model stem_stride", "a stem with a stride", part.name, f"embedding: {' or '.join(fitting)}")
    if part.name not in CONVOLUTIONS:
        return part.with_options(stride=stride)
    old = {name: part.options.get(name, known[name].default) for name in ("kernel_size", "stride", "padding")}
    if old["kernel_size"] == old["stride"]:
        return part.with_options(kernel_size=stride, stride=stride, padding="end")
    return part.with_options(**overlap_of(stride))


def stride_of(part: Part) -> PerAxis:
    """Stride of an embedding, as its options say, or as a small one has it."""
    stride = part.options.get("stride")
    if stride is not None:
        return stride
    with torch.device("meta"):  # no memory, no random numbers
        (stride,) = EMBEDDINGS.build(part, 1, 1, spatial_dims=1).reduction
    return stride
