from __future__ import annotations

from torch import Tensor

from mixlab.cost import Cost, Size, convolution
from mixlab.mixers.base import Includes, Mixer, register_mixer
from mixlab.ops.convs import CONVS
from mixlab.ops.windows import PerAxis, odd_kernel, per_axis


@register_mixer("conv")
class Conv(Mixer):
    """Dense convolution: every output channel sees every input channel in the window.

    ``y_i = b + sum_o W_o x_{i+o}`` over the window's offsets ``o``, zeros outside the image. It mixes channels as well
    as tokens, so it is the strongest and the most expensive of the window mixers.

    Args:
        dim: channels.
        spatial_dims: 1, 2 or 3.
        kernel_size: odd window, an int or one per axis.
        dilation: distance between neighbours in the window, likewise.
        bias: add a learned bias per channel.

    Cost: ``N · dim² · prod(kernel_size)`` MACs, ``dim² · prod(kernel_size) + dim`` parameters.

    Source: the study's ``conv`` (see the results it publishes); the operation is LeCun et al., 1989.
    """

    includes = Includes(mixes_channels=True, learned=True, position="window", reach="window")
    depthwise = False

    def __init__(
        self, dim: int, *, spatial_dims: int = 2, kernel_size: PerAxis = 3, dilation: PerAxis = 1, bias: bool = True
    ) -> None:
        super().__init__(dim, spatial_dims=spatial_dims)
        name = "sep_conv" if self.depthwise else "conv"
        self.kernel_size = odd_kernel(kernel_size, spatial_dims, name)
        steps = per_axis(dilation, spatial_dims, f"{name} dilation")
        self.groups = dim if self.depthwise else 1
        padding = tuple(k // 2 * d for k, d in zip(self.kernel_size, steps, strict=True))
        self.conv = CONVS[spatial_dims](
            dim,
            dim,
            self.kernel_size,
            padding=padding,
            dilation=steps,
            groups=self.groups,
            bias=bias,
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim, *spatial)`` to the same shape."""
        self.check(x)
        return self.conv(x)

    def cost(self, size: Size) -> Cost:
        bias = self.conv.bias is not None
        return convolution(self.dim, self.dim, self.kernel_size, size, groups=self.groups, bias=bias)
