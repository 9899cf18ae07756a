"""Downsampling by depthwise convolutions."""

from __future__ import annotations

from torch import Tensor, nn

from mixlab.cost import Cost, Size
from mixlab.embeddings.base import EMBEDDINGS, Embedding
from mixlab.errors import expected
from mixlab.ops.windows import PerAxis, odd_kernel, per_axis
from mixlab.reparam import NormSkip, RepDepthwise, layer_cost, layer_output


@EMBEDDINGS.register("rep_downsample")
class RepDownsample(Embedding):
    """A strided depthwise convolution that also widens, then ``x + W BN(x)`` on each position.

    Every input channel makes ``dim / dim_in`` output channels. In training the convolution is a sum of two (see
    ``mixlab.reparam``); in deployment the whole is two plain convolutions.

    Args:
        dim_in: channels in.
        dim: channels out, a multiple of ``dim_in``.
        spatial_dims: 1, 2 or 3.
        kernel_size: odd, an int or one per axis in ``(D, H, W)`` order; padding is half of it.
        stride: an int or one per axis, likewise.

    Raises:
        UserError: ``dim`` is no multiple of ``dim_in``.

    Source: FFNet (arXiv:2406.02021), between stages.
    """

    def __init__(
        self, dim_in: int, dim: int, *, spatial_dims: int = 2, kernel_size: PerAxis = 7, stride: PerAxis = 2
    ) -> None:
        super().__init__(dim_in, dim, spatial_dims=spatial_dims)
        if dim % dim_in:
            raise expected("rep_downsample width", f"a multiple of the {dim_in} channels before it", dim)
        kernel = odd_kernel(kernel_size, spatial_dims, "rep_downsample")
        self.stride = per_axis(stride, spatial_dims, "rep_downsample stride")
        self.conv: nn.Module = RepDepthwise(dim_in, dim, kernel, spatial_dims=spatial_dims, stride=self.stride)
        self.skip: nn.Module = NormSkip(dim, spatial_dims=spatial_dims)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim_in, *spatial)`` to ``(B, dim, *output_size(spatial))``."""
        return self.skip(self.conv(x))

    @property
    def reduction(self) -> Size:
        return self.stride

    def output_size(self, size: Size) -> Size:
        if min(size) < 1:
            raise expected("rep_downsample input", "at least one position per axis", size)
        return layer_output(self.conv, size)

    def cost(self, size: Size) -> Cost:
        return layer_cost(self.conv, size) + layer_cost(self.skip, self.output_size(size))
