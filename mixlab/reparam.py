"""Parts with a training form and a deployment form that computes the same (structural reparameterisation).

A part has ``fuse()``, which returns the module that takes its place, in evaluation mode only; the part itself stays as
it was. ``MetaFormer.fuse`` puts it in place. A container counts and measures what it holds through
:func:`layer_cost` and :func:`layer_output`, which know both forms.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mixlab.cost import Cost, Size, convolution
from mixlab.norms import batch_norm, norm_cost
from mixlab.ops.convs import CONVS
from mixlab.ops.windows import PerAxis, check_spatial_dims, conv_output, per_axis


class ConvNorm(nn.Module):
    """A convolution, then BatchNorm; in deployment one convolution with a bias.

    Args:
        dim_in, dim_out: channels.
        kernel_size: an int or one per axis.
        spatial_dims: 1, 2 or 3.
        stride: likewise.
        padding: zeros on both sides, likewise; None for half the kernel, which keeps the size at stride 1.
        groups: of the convolution.
        bias: of the convolution; BatchNorm has its own.
    """

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        kernel_size: PerAxis,
        *,
        spatial_dims: int = 2,
        stride: PerAxis = 1,
        padding: PerAxis | None = None,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        check_spatial_dims(spatial_dims, "conv and norm")
        kernel = per_axis(kernel_size, spatial_dims, "conv and norm kernel_size")
        steps = per_axis(stride, spatial_dims, "conv and norm stride")
        half = tuple(k // 2 for k in kernel)
        zeros = half if padding is None else per_axis(padding, spatial_dims, "conv and norm padding", at_least=0)
        self.conv = CONVS[spatial_dims](dim_in, dim_out, kernel, steps, zeros, groups=groups, bias=bias)
        self.norm = batch_norm(dim_out, spatial_dims=spatial_dims)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim_in, *spatial)`` to ``(B, dim_out, *output_size(spatial))``."""
        return self.norm(self.conv(x))

    def output_size(self, size: Size) -> Size:
        """Size of the map made from one of ``size``."""
        return layer_output(self.conv, size)

    def cost(self, size: Size) -> Cost:
        """Cost for one input of ``size``."""
        return layer_cost(self.conv, size) + norm_cost(self.norm, self.output_size(size))

    def fuse(self) -> nn.Module:
        """One convolution that computes the same."""
        return fuse_conv_bn_eval(self.conv, self.norm)


def layer_output(layer: nn.Module, size: Size) -> Size:
    """Output size of a convolution, or of a part of this file."""
    if isinstance(layer, _ConvNd):
        padding = tuple(int(p) for p in layer.padding)
        spans = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return conv_output(size, spans, layer.stride, padding)
    return layer.output_size(size)  # type: ignore[operator]


def layer_cost(layer: nn.Module, size: Size) -> Cost:
    """Cost of a convolution, or of a part of this file, for one input of ``size``."""
    if not isinstance(layer, _ConvNd):
        return layer.cost(size)  # type: ignore[operator]
    return convolution(
        layer.in_channels, layer.out_channels, layer.kernel_size, layer_output(layer, size),
        groups=layer.groups, bias=layer.bias is not None,
    )  # fmt: skip
