"""A stem of several small convolutions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mixlab.activations import ACTIVATIONS
from mixlab.cost import Cost, Size
from mixlab.embeddings.base import EMBEDDINGS, Embedding
from mixlab.errors import expected
from mixlab.ops.windows import PerAxis, odd_kernel, per_axis
from mixlab.reparam import ConvNorm, layer_cost, layer_output


@EMBEDDINGS.register("conv_stack")
class ConvStack(Embedding):
    """Convolutions with BatchNorm, an activation between them and none after the last.

    Args:
        dim_in: channels in.
        dim: channels out.
        spatial_dims: 1, 2 or 3.
        hidden: channels after each convolution but the last.
        strides: one per convolution, each an int or one per axis in ``(D, H, W)`` order.
        kernel_size: odd, the same for all, an int or one per axis; padding is half of it.
        bias: biases of the convolutions.
        act: activation, a name or a part of ``mixlab.activations.ACTIVATIONS``.

    Source: Xiao et al., Early Convolutions Help Transformers See Better (arXiv:2106.14881); as in FFNet
    (arXiv:2406.02021: two convolutions, no bias) and RMT (arXiv:2309.11523: four, strides 2, 1, 2, 1).
    """

    def __init__(
        self,
        dim_in: int,
        dim: int,
        *,
        spatial_dims: int = 2,
        hidden: Sequence[int] = (64,),
        strides: Sequence[PerAxis] = (2, 2),
        kernel_size: PerAxis = 3,
        bias: bool = True,
        act: str | Mapping[str, Any] = "gelu",
    ) -> None:
        super().__init__(dim_in, dim, spatial_dims=spatial_dims)
        self.kernel_size = odd_kernel(kernel_size, spatial_dims, "conv_stack")
        if not isinstance(hidden, Sequence) or not all(isinstance(h, int) and h > 0 for h in hidden):
            raise expected("conv_stack hidden", "numbers of channels", hidden, "(64,)")
        if not isinstance(strides, Sequence) or len(strides) != len(hidden) + 1:
            raise expected("conv_stack strides", f"{len(hidden) + 1} strides, one per convolution", strides)
        self.strides = [per_axis(s, spatial_dims, "conv_stack strides") for s in strides]
        widths = [dim_in, *hidden, dim]
        self.layers = nn.ModuleList(
            ConvNorm(a, b, self.kernel_size, spatial_dims=spatial_dims, stride=s, bias=bias)
            for a, b, s in zip(widths, widths[1:], self.strides, strict=False)
        )
        self.acts = nn.ModuleList(ACTIVATIONS.build(act) for _ in hidden)
        self.hidden = tuple(hidden)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim_in, *spatial)`` to ``(B, dim, *output_size(spatial))``."""
        x = self.layers[0](x)
        for act, layer in zip(self.acts, list(self.layers)[1:], strict=True):
            x = layer(act(x))
        return x

    @property
    def reduction(self) -> Size:
        return tuple(math.prod(axis) for axis in zip(*self.strides, strict=True))

    def output_size(self, size: Size) -> Size:
        if min(size) < 1:
            raise expected("conv_stack input", "at least one position per axis", size)
        for layer in self.layers:
            size = layer_output(layer, size)
        return size

    def cost(self, size: Size) -> Cost:
        total = Cost()
        for index, layer in enumerate(self.layers):
            total += layer_cost(layer, size)
            size = layer_output(layer, size)
            if index < len(self.hidden):
                elements = self.hidden[index] * math.prod(size)
                own = sum(p.numel() for p in self.acts[index].parameters())
                total += Cost(parameters=own, other_ops=elements, activations=elements)
        return total

    def fuse(self) -> ConvStack:
        """Fold every BatchNorm into its convolution (evaluation mode)."""
        for index, layer in enumerate(self.layers):
            if isinstance(layer, ConvNorm):
                self.layers[index] = layer.fuse()
        return self
