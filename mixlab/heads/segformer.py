"""The decoder of SegFormer: every map in one resolution, two linear layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mixlab.activations import ACTIVATIONS
from mixlab.cost import Cost, Size, linear
from mixlab.errors import expected
from mixlab.heads.decoder import ChannelDropout, Decoder, elementwise, register_decoder, resize_cost
from mixlab.norms import build_norm, norm_cost
from mixlab.ops import Pointwise, pointwise
from mixlab.ops.resize import resized


@register_decoder("segformer")
class SegFormerDecoder(Decoder):
    """Each map by a linear layer to ``width`` channels, resized to the first map, joined; linear layer, norm,
    activation, linear layer to the classes; resized to the image.

    The layer on the joined maps works on each map before it is resized, and the results are summed: interpolation acts
    on positions and the layer on channels, so that the order changes nothing but the work (about a third).

    Args:
        widths, reductions, num_classes, spatial_dims: see :class:`Decoder`.
        width: channels of each map and of the joint one.
        norm: of the joint map, a part of ``mixlab.norms.NORMS``, or None.
        act: a part of ``mixlab.activations.ACTIVATIONS``.
        dropout: of whole channels before the classes.

    Source: Xie et al., SegFormer (arXiv:2105.15203), which has batch norm and ReLU; group norm and GELU as in the
    local-attention study that mixlab reproduces.
    """

    def __init__(
        self,
        widths: Sequence[int],
        reductions: Sequence[Sequence[int]],
        num_classes: int,
        *,
        spatial_dims: int = 2,
        width: int = 256,
        norm: str | Mapping[str, Any] | None = "group_norm",
        act: str | Mapping[str, Any] = "gelu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(widths, reductions, num_classes, spatial_dims=spatial_dims)
        if width < 1:
            raise expected("decoder segformer width", "at least 1", width, "256")
        self.width = width
        self.projections = nn.ModuleList(Pointwise(w, width) for w in widths)
        self.fusion = Pointwise(width * len(widths), width)
        self.norm = build_norm(norm, width, spatial_dims)
        self.act = ACTIVATIONS.build(act)
        self.dropout = ChannelDropout(dropout)
        self.classifier = Pointwise(width, num_classes)

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        self.check(maps)
        first = maps[0].shape[2:]
        shares = self.fusion.weight.split(self.width, dim=1)
        joint: Tensor | None = None
        for found, projection, share in zip(maps, self.projections, shares, strict=True):
            bias = self.fusion.bias if joint is None else None  # once
            part = resized(pointwise(projection(found), share, bias), first)
            joint = part if joint is None else joint + part
        assert joint is not None, "the constructor refuses no maps"
        x = self.dropout(self.act(self.norm(joint)))
        return resized(self.classifier(x), size)

    def cost(self, sizes: Sequence[Size], size: Size) -> Cost:
        first, width = sizes[0], self.width
        at_first = math.prod(first)
        total = Cost(parameters=self.fusion.weight.numel() + width)
        for index, (dim, own) in enumerate(zip(self.widths, sizes, strict=True)):
            at_own = math.prod(own)
            total += linear(dim, width, at_own)
            # As it is defined, the layer works on the joined map.
            total += Cost(0, width**2 * at_first, width**2 * at_own, width**2 * at_first, 0, width * at_own)
            total += resize_cost(width, own, first)
            total += elementwise(width, first) if index else Cost()
        total += norm_cost(self.norm, first) + elementwise(width, first)
        total += Cost(parameters=sum(p.numel() for p in self.act.parameters()))
        total += linear(width, self.num_classes, at_first)
        return total + resize_cost(self.num_classes, first, size)
