"""Convolutional patch embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixlab.cost import Cost, Size, convolution
from mixlab.embeddings.base import EMBEDDINGS, Embedding
from mixlab.errors import expected
from mixlab.norms import build_norm, norm_cost
from mixlab.ops.convs import CONVS, channels_last
from mixlab.ops.windows import PerAxis, conv_output, per_axis
from mixlab.reparam import fused_conv


@EMBEDDINGS.register("conv")
class ConvEmbedding(Embedding):
    """One strided convolution, with a norm before or after it if asked.

    Args:
        dim_in: channels in.
        dim: channels out.
        spatial_dims: 1, 2 or 3.
        kernel_size, stride: an int or one per axis in ``(D, H, W)`` order.
        padding: zeros on both sides, likewise; or ``end``: as many zeros at the end of each axis as make its size a
            multiple of the stride, so that patches that do not overlap (``kernel_size == stride``) lose no pixel.
        bias: bias of the convolution.
        pre_norm: norm on the input, a part of ``mixlab.norms.NORMS``, or None.
        norm: norm on the output, likewise.

    Source: PoolFormer (arXiv:2111.11418): 7x7 stride 4 padding 2 as stem, 3x3 stride 2 padding 1 between stages, no
    norm.
    """

    def __init__(
        self,
        dim_in: int,
        dim: int,
        *,
        spatial_dims: int = 2,
        kernel_size: PerAxis = 3,
        stride: PerAxis = 2,
        padding: PerAxis | Literal["end"] = 1,
        bias: bool = True,
        pre_norm: str | Mapping[str, Any] | None = None,
        norm: str | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(dim_in, dim, spatial_dims=spatial_dims)
        self.kernel_size = per_axis(kernel_size, spatial_dims, "conv embedding kernel_size")
        self.stride = per_axis(stride, spatial_dims, "conv embedding stride")
        self.pad_end = padding == "end"
        both_sides = 0 if isinstance(padding, str) else padding
        if isinstance(padding, str) and not self.pad_end:
            raise expected("conv embedding padding", "an int, one int per axis, or 'end'", padding)
        self.padding = per_axis(both_sides, spatial_dims, "conv embedding padding", at_least=0)
        self.pre_norm = build_norm(pre_norm, dim_in, spatial_dims)
        self.proj = CONVS[spatial_dims](
            dim_in,
            dim,
            self.kernel_size,
            self.stride,
            self.padding,
            bias=bias,
        )
        self.norm = build_norm(norm, dim, spatial_dims)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim_in, *spatial)`` to ``(B, dim, *output_size(spatial))``."""
        x = self.pre_norm(x)
        if self.pad_end:
            missing = [-n % s for n, s in zip(x.shape[2:], self.stride, strict=True)]
            x = F.pad(x, [zeros for m in reversed(missing) for zeros in (0, m)])
        return self.norm(self._convolve(x))

    def _convolve(self, x: Tensor) -> Tensor:
        """The convolution, on a CPU with the smaller of two copies.

        Where channels are innermost in a map, torch copies the weights into that order in every call. Weights that are
        larger than the map (late stages, small batches) stay, and the map is copied, there and back.
        """
        if x.device.type != "cpu" or torch.compiler.is_compiling() or x.numel() >= self.proj.weight.numel():
            return self.proj(x)
        return channels_last(self.proj(x.contiguous()))

    @property
    def reduction(self) -> Size:
        return self.stride

    def output_size(self, size: Size) -> Size:
        if self.pad_end:
            size = tuple(-(-n // s) * s for n, s in zip(size, self.stride, strict=True))
        out = conv_output(size, self.kernel_size, self.stride, self.padding)
        if min(out) < 1:
            smallest = max(k - 2 * p for k, p in zip(self.kernel_size, self.padding, strict=True))
            what = f"an input of at least {max(smallest, 1)} positions per axis (kernel {self.kernel_size})"
            raise expected("patch embedding", what, size, "a larger image_size, or a model with a smaller stem")
        return out

    def cost(self, size: Size) -> Cost:
        out = self.output_size(size)
        bias = self.proj.bias is not None
        conv = convolution(self.dim_in, self.dim, self.kernel_size, out, bias=bias)
        return norm_cost(self.pre_norm, size) + conv + norm_cost(self.norm, out)

    def fuse(self) -> ConvEmbedding:
        """Fold a BatchNorm after the convolution into it (evaluation mode)."""
        if isinstance(self.norm, nn.modules.batchnorm._BatchNorm):
            self.proj = fused_conv(self.proj, self.norm)
            self.norm = nn.Identity()
        return self
