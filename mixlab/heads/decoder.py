"""The contract of dense decoders: from the maps of an encoder to a score of each class at every pixel.

One rule for sizes: maps have whatever sizes the encoder gives, and are brought to the size of another map or of the
image, as it is, by linear interpolation with ``align_corners=False``. So any image size works, and nothing is padded or
cropped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mixlab.cost import Cost, Size
from mixlab.errors import Quoted, expected
from mixlab.ops.windows import check_map, check_spatial_dims
from mixlab.registry import Part, Registry


class Decoder(nn.Module):
    """From maps ``(B, C_i, *size_i)`` to logits ``(B, num_classes, *size)``.

    Constructor: ``Decoder(widths, reductions, num_classes, *, spatial_dims=2, dropout=0.0, **own_options)``.

    Args:
        widths: channels of the maps, from the first (largest) to the last.
        reductions: their strides against the image, one int per axis each.
        num_classes: logits at every pixel, at least 1.
        spatial_dims: 1, 2 or 3.

    Raises:
        UserError: no maps, no classes, or a number of strides that is not that of the maps.
    """

    def __init__(
        self, widths: Sequence[int], reductions: Sequence[Sequence[int]], num_classes: int, *, spatial_dims: int = 2
    ) -> None:
        super().__init__()
        where = f"decoder {type(self).__name__}"
        check_spatial_dims(spatial_dims, where)
        if not widths or len(widths) != len(reductions):
            got = Quoted(f"{len(widths)} widths, {len(reductions)} strides")
            raise expected(where, "the widths and strides of at least one map", got, "an encoder with feature_info")
        if num_classes < 1:
            raise expected(f"{where} num_classes", "at least 1", num_classes, "features_only=True for maps")
        self.widths, self.reductions = tuple(widths), tuple(tuple(r) for r in reductions)
        self.num_classes, self.spatial_dims = num_classes, spatial_dims

    @classmethod
    def reads(cls, maps: int, **options: object) -> tuple[int, ...]:
        """Which of so many maps a decoder with these options uses; by default all."""
        return tuple(range(maps))

    def check(self, maps: Sequence[Tensor]) -> None:
        """Raise a UserError unless ``maps`` are as many and as wide as the decoder was built for."""
        where = f"decoder {type(self).__name__}"
        if len(maps) != len(self.widths):
            raise expected(f"{where} input", f"{len(self.widths)} maps", len(maps), "all maps of the encoder")
        for found, width in zip(maps, self.widths, strict=True):
            check_map(found.shape, width, self.spatial_dims, where)

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Logits ``(B, num_classes, *size)``; ``size`` is that of the image."""
        raise NotImplementedError

    def cost(self, sizes: Sequence[Size], size: Size) -> Cost:
        """Cost for maps of ``sizes`` and an image of ``size``."""
        raise NotImplementedError

    def fuse(self) -> Decoder:
        """The decoder in its deployment form, in place; here it has no other."""
        return self


class ChannelDropout(nn.Dropout):
    """Dropout of whole channels: neighbouring positions say nearly the same, and would stand in for each other."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.feature_dropout(x, self.p, self.training)


def resize_cost(dim: int, old: Size, new: Size) -> Cost:
    """Cost of :func:`mixlab.ops.resize.resized`: an element is a sum of ``2 ** axes`` products."""
    if tuple(old) == tuple(new):
        return Cost()
    elements = dim * math.prod(new)
    return Cost(other_ops=elements * (2 ** (len(new) + 1) - 1), activations=elements)


def elementwise(dim: int, size: Size) -> Cost:
    """Cost of one operation an element, such as an activation or the sum of two maps."""
    return Cost(other_ops=dim * math.prod(size), activations=dim * math.prod(size))


DECODERS: Registry[Decoder] = Registry("decoder", "mixlab.decoders")
register_decoder = DECODERS.register


def maps_read(decoder: Part, maps: int) -> tuple[int, ...]:
    """Which of an encoder's maps a decoder uses; a factory that is no class uses all."""
    reads = getattr(DECODERS[decoder.name], "reads", None)
    return tuple(range(maps)) if reads is None else reads(maps, **decoder.options)
