"""ResNet-18 with windows of 3, 5 or 7, in 1D, 2D and 3D.

Own code, because no library has it: timm's and torchvision's are 2D, MONAI's has 3x3 kernels alone, and none states its
cost. Names and numbers are theirs (tests compare), so that their files of weights load.
"""

from __future__ import annotations

import math
from os import PathLike

import torch.nn.functional as F
from torch import Tensor, nn

from mixlab.architectures import Published
from mixlab.baselines.base import Baseline, BaselineConfig, register_baseline
from mixlab.baselines.loading import load_baseline
from mixlab.cost import Cost, Size, convolution, linear
from mixlab.norms import batch_norm, norm_cost
from mixlab.ops.convs import CONVS, channels_last
from mixlab.ops.windows import conv_output, odd_kernel
from mixlab.weights import LoadReport

WIDTHS, DEPTH = (64, 128, 256, 512), 2
Kernel = tuple[int, ...]
_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def conv(dim_in: int, dim: int, kernel: Kernel, stride: int = 1) -> nn.Module:
    """A convolution without bias that keeps the size but for its stride."""
    padding = tuple(k // 2 for k in kernel)
    made = CONVS[len(kernel)](dim_in, dim, kernel, stride, padding, bias=False)
    nn.init.kaiming_normal_(made.weight, mode="fan_out", nonlinearity="relu")
    return made


def conv_cost(module: nn.Module, size: Size) -> tuple[Cost, Size]:
    """Cost of a convolution for an input of ``size``, and the size of its output."""
    assert isinstance(module, nn.modules.conv._ConvNd)
    out = conv_output(size, module.kernel_size, module.stride, module.padding)  # type: ignore[arg-type]
    return convolution(module.in_channels, module.out_channels, module.kernel_size, out, bias=False), out


def relu_cost(dim: int, size: Size) -> Cost:
    """One operation an element."""
    return Cost(other_ops=dim * math.prod(size), activations=dim * math.prod(size))


class BasicBlock(nn.Module):
    """``relu(shortcut(x) + norm(conv(relu(norm(conv(x))))))``; the shortcut is a 1x1 convolution if shapes differ."""

    def __init__(self, dim_in: int, dim: int, kernel: Kernel, stride: int) -> None:
        super().__init__()
        dims = len(kernel)
        self.conv1, self.bn1 = conv(dim_in, dim, kernel, stride), batch_norm(dim, spatial_dims=dims)
        self.conv2, self.bn2 = conv(dim, dim, kernel), batch_norm(dim, spatial_dims=dims)
        self.downsample = (
            nn.Sequential(conv(dim_in, dim, (1,) * dims, stride), batch_norm(dim, spatial_dims=dims))
            if stride > 1 or dim_in != dim
            else None
        )
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim_in, *spatial)`` to ``(B, dim, *spatial / stride)``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)).add_(shortcut), inplace=True)

    def cost(self, size: Size) -> tuple[Cost, Size]:
        """Cost for a map of ``size``, and the size of what comes out."""
        total, out = conv_cost(self.conv1, size)
        total += norm_cost(self.bn1, out) + relu_cost(self.dim, out)
        total += conv_cost(self.conv2, out)[0] + norm_cost(self.bn2, out) + relu_cost(self.dim, out)
        if self.downsample is not None:
            total += conv_cost(self.downsample[0], size)[0] + norm_cost(self.downsample[1], out)
        return total, out


@register_baseline("resnet18")
class ResNet18(Baseline):
    """ResNet-18: a 7x7 convolution of stride 2, max pooling, four stages of two blocks, mean and a linear layer.

    ``kernel_size`` (odd, an int or one per axis) is the window of the blocks' convolutions: 3 as published, 5 and 7 as
    in the study; stem and shortcuts stay as they are.

    Source: He et al., Deep Residual Learning for Image Recognition (arXiv:1512.03385); larger windows: the
    local-attention study that mixlab reproduces. Weights: any file with the names of torchvision and timm.
    """

    takes = frozenset({"kernel_size", "dropout", "image_size", "inflate"})
    hub_name = "resnet18"
    published = Published(paper="arXiv:1512.03385", repository="KaimingHe/deep-residual-networks", macs=1.8)

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__(config)
        dims = config.spatial_dims
        kernel = odd_kernel(3 if config.kernel_size is None else config.kernel_size, dims, "resnet18")
        self.conv1 = conv(config.in_channels, WIDTHS[0], (7,) * dims, 2)
        self.bn1 = batch_norm(WIDTHS[0], spatial_dims=dims)
        dim = WIDTHS[0]
        for index, width in enumerate(WIDTHS):
            blocks = [BasicBlock(width if i else dim, width, kernel, 2 if index and not i else 1) for i in range(DEPTH)]
            setattr(self, f"layer{index + 1}", nn.Sequential(*blocks))
            dim = width
            reduction = (4 * 2**index,) * dims
            self.feature_info.append({"num_chs": width, "reduction": reduction, "module": f"layer{index + 1}"})
        self.dropout = nn.Dropout(config.dropout)
        classes = 0 if config.features_only else config.num_classes
        self.fc = nn.Linear(dim, classes) if classes else nn.Identity()

    @property
    def head(self) -> nn.Module | None:  # type: ignore[override]
        """The classifier, under the name that files of weights have for it."""
        return None if self.config.features_only else nn.Sequential(self.dropout, self.fc)

    def layers(self) -> list[nn.Sequential]:
        """The four stages."""
        return [getattr(self, f"layer{i + 1}") for i in range(len(WIDTHS))]

    def forward_stages(self, x: Tensor) -> list[Tensor]:
        self.check(x)
        x = F.relu(self.bn1(self.conv1(channels_last(x))), inplace=True)
        x = _MAX_POOL[self.config.spatial_dims](x, 3, 2, 1)
        maps = []
        for layer in self.layers():
            x = layer(x)
            maps.append(x)
        return maps

    def forward_features(self, x: Tensor) -> Tensor:
        """The last map ``(B, 512, *spatial / 32)``."""
        return self.forward_stages(x)[-1]

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        maps = self.forward_stages(x)
        return maps if self.config.features_only else self.fc(self.dropout(maps[-1].flatten(2).mean(2)))

    def cost(self, size: Size) -> Cost:
        """Cost for one image of ``size`` (see :mod:`mixlab.cost`)."""
        total, out = conv_cost(self.conv1, size)
        total += norm_cost(self.bn1, out) + relu_cost(WIDTHS[0], out)
        out = conv_output(out, (3,) * len(out), (2,) * len(out), (1,) * len(out))
        elements = WIDTHS[0] * math.prod(out)
        total += Cost(other_ops=(3 ** len(out) - 1) * elements, activations=elements)  # comparisons
        for layer in self.layers():
            for block in layer:
                cost, out = block.cost(out)  # type: ignore[operator]
                total += cost
        if self.config.features_only:
            return total
        pool = Cost(other_ops=WIDTHS[-1] * math.prod(out), activations=WIDTHS[-1])
        classes = self.config.num_classes
        return total + pool + (linear(WIDTHS[-1], classes, 1) if classes else Cost())

    def load(self, source: str | PathLike[str]) -> LoadReport:
        """Load a file with the names of torchvision and timm.

        A published 3x3 kernel goes into the centre of a larger one, zeros around it, which computes the same; image
        channels are adapted; a classifier of another number of classes stays fresh. ``inflate`` lets 2D weights start
        a 3D network.

        Raises:
            UserError: the file cannot be read, holds something else, or is of other dimensions.
        """
        return load_baseline(self, source, stem="conv1.weight", classifier="fc")
