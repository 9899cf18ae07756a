"""Patches by their stride alone: overlapping as PoolFormer's, or side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixlab.embeddings.base import EMBEDDINGS
from mixlab.embeddings.conv import ConvEmbedding
from mixlab.ops.windows import PerAxis, per_axis


def overlap_of(stride: PerAxis) -> dict[str, Any]:
    """Kernel and padding of overlapping patches: ``2 stride - 1`` and ``stride // 2``.

    That is PoolFormer's 7x7 with padding 2 at stride 4, and 3x3 with padding 1 at stride 2.
    """
    if isinstance(stride, int):
        return {"kernel_size": 2 * stride - 1, "stride": stride, "padding": stride // 2}
    return {"kernel_size": [2 * s - 1 for s in stride], "stride": list(stride), "padding": [s // 2 for s in stride]}


@EMBEDDINGS.register("overlap")
def overlapping(
    dim_in: int,
    dim: int,
    *,
    spatial_dims: int = 2,
    stride: PerAxis = 2,
    bias: bool = True,
    pre_norm: str | Mapping[str, Any] | None = None,
    norm: str | Mapping[str, Any] | None = None,
) -> ConvEmbedding:
    """A convolution whose patches overlap: kernel ``2 stride - 1``, padding ``stride // 2``, as PoolFormer's."""
    strides = per_axis(stride, spatial_dims, "overlap stride")
    options = overlap_of(strides)
    return ConvEmbedding(dim_in, dim, spatial_dims=spatial_dims, bias=bias, pre_norm=pre_norm, norm=norm, **options)


@EMBEDDINGS.register("non_overlap")
def non_overlapping(
    dim_in: int,
    dim: int,
    *,
    spatial_dims: int = 2,
    stride: PerAxis = 2,
    bias: bool = True,
    pre_norm: str | Mapping[str, Any] | None = None,
    norm: str | Mapping[str, Any] | None = None,
) -> ConvEmbedding:
    """A convolution whose patches lie side by side: kernel equal to stride, padded at the end, as ViT's and nano's."""
    strides = per_axis(stride, spatial_dims, "non_overlap stride")
    return ConvEmbedding(
        dim_in,
        dim,
        spatial_dims=spatial_dims,
        kernel_size=strides,
        stride=strides,
        padding="end",
        bias=bias,
        pre_norm=pre_norm,
        norm=norm,
    )
