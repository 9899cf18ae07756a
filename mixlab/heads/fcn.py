"""Fully convolutional networks' decoder: sums of class scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from mixlab.cost import Cost, Size, linear
from mixlab.errors import expected
from mixlab.heads.decoder import ChannelDropout, Decoder, elementwise, register_decoder, resize_cost
from mixlab.ops import Pointwise
from mixlab.ops.resize import resized


@register_decoder("fcn")
class FCNDecoder(Decoder):
    """Class scores of the last map by a linear layer, resized to the map before it and added to its scores, and so on;
    the sum is resized to the image.

    With maps at strides 4, 8, 16, 32 that is FCN-32s for ``skips=0``, FCN-16s for 1, FCN-8s for 2 and one step further,
    to stride 4, for 3. Interpolation stands in for the transposed convolutions of the paper, which start as bilinear
    interpolation; there are no further layers, as VGG's fully connected ones were part of the encoder.

    Args:
        widths, reductions, num_classes, spatial_dims: see :class:`Decoder`.
        skips: how many maps before the last take part.
        dropout: of whole channels of the maps that take part.

    Source: Long et al., Fully Convolutional Networks for Semantic Segmentation (arXiv:1411.4038).
    """

    def __init__(
        self,
        widths: Sequence[int],
        reductions: Sequence[Sequence[int]],
        num_classes: int,
        *,
        spatial_dims: int = 2,
        skips: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(widths, reductions, num_classes, spatial_dims=spatial_dims)
        if not 0 <= skips < len(widths):
            want = f"0 to {len(widths) - 1}, as there are {len(widths)} maps"
            raise expected("decoder fcn skips", want, skips, str(min(2, len(widths) - 1)))
        self.skips = skips
        self.dropout = ChannelDropout(dropout)
        self.scores = nn.ModuleList(Pointwise(w, num_classes) for w in widths[len(widths) - 1 - skips :])

    @classmethod
    def reads(cls, maps: int, **options: object) -> tuple[int, ...]:
        """The last ``skips + 1``."""
        skips = options.get("skips", 2)
        return tuple(range(max(maps - 1 - skips, 0), maps)) if isinstance(skips, int) else tuple(range(maps))

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        self.check(maps)
        total: Tensor | None = None
        for found, score in zip(reversed(maps), reversed(self.scores), strict=False):
            own = score(self.dropout(found))
            total = own if total is None else own + resized(total, own.shape[2:])
        assert total is not None, "the last map always takes part"
        return resized(total, size)

    def cost(self, sizes: Sequence[Size], size: Size) -> Cost:
        total, before = Cost(), None
        for index in range(len(sizes) - 1, len(sizes) - 2 - self.skips, -1):
            own = sizes[index]
            total += linear(self.widths[index], self.num_classes, math.prod(own))
            if before is not None:
                total += resize_cost(self.num_classes, before, own) + elementwise(self.num_classes, own)
            before = own
        assert before is not None
        return total + resize_cost(self.num_classes, before, size)
