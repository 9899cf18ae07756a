from __future__ import annotations

from mixlab.mixers.base import Includes, register_mixer
from mixlab.mixers.conv import Conv


@register_mixer("sep_conv")
class SepConv(Conv):
    """Depthwise convolution: each channel is filtered by its own window.

    ``y_i[c] = b[c] + sum_o w_o[c] x_{i+o}[c]`` over the window's offsets ``o``, zeros outside the image. Channels meet
    in the block's channel mixer only: together the two are a depthwise separable convolution, hence the study's name
    for it.

    Args:
        dim: channels.
        spatial_dims: 1, 2 or 3.
        kernel_size: odd window, an int or one per axis.
        dilation: distance between neighbours in the window, likewise.
        bias: add a learned bias per channel.

    Cost: ``N · dim · prod(kernel_size)`` MACs, ``dim · (prod(kernel_size) + 1)`` parameters.

    Source: the study's ``sep_conv``; the depthwise row of PoolFormer's ablation (arXiv:2111.11418), there 78.1 % on
    ImageNet.
    """

    includes = Includes(learned=True, position="window", reach="window")
    depthwise = True
