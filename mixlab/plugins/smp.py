"""MetaFormers as encoders of segmentation_models_pytorch (``pip install "mixlab[smp]"``), two ways.

Through timm, once this file (or :mod:`mixlab.plugins.timm`) is imported; keywords go to the encoder:

>>> import segmentation_models_pytorch as smp, mixlab.plugins.smp
>>> smp.Unet("tu-metaformer_s12", encoder_weights=None, token_mixer="local_attention", kernel_size=5)

Under a name of one's own, for what timm's interface has no room: weights with another mixer, a stem of stride 2, image
channels of any number. Then the encoder's options are given once:

>>> mixlab.plugins.smp.register("s12_local", "poolformer_s12", token_mixer="local_attention", init="pooling",
...                             pretrained="poolformer_s12.pth.tar", out_norm="group_norm")
>>> smp.FPN("s12_local", encoder_weights=None, in_channels=1)

Unet takes images of any size that the encoder takes; for FPN and UPerNet height and width must be multiples of 32, and
smp says so. Maps have no norm unless ``out_norm`` asks for one.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from segmentation_models_pytorch.encoders import encoders
from torch import Tensor, nn

from mixlab.architectures import ARCHITECTURES
from mixlab.errors import Quoted, expected, unknown
from mixlab.models import create_model
from mixlab.plugins import timm as _timm  # registers the names behind "tu-"

NAMES = _timm.NAMES
"""Name behind ``tu-`` to mixlab's, for every architecture."""


class Encoder(nn.Module):
    """A MetaFormer with the interface of smp's encoders.

    Args:
        architecture: one of ``mixlab.list_models()`` that is a MetaFormer.
        in_channels: channels of the image.
        depth: how often the resolution is halved: maps up to stride ``2 ** depth`` are returned.
        output_stride: smp's argument; only 32, the encoder's own, as strides are the architecture's.
        options: of :func:`mixlab.create_model`.

    Raises:
        UserError: strides that are no powers of two, a depth that there is no map for, or an option that does not fit.
    """

    def __init__(
        self, architecture: str, *, in_channels: int = 3, depth: int = 5, output_stride: int = 32, **options: Any
    ) -> None:
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise unknown("architecture", architecture, ARCHITECTURES)
        if output_stride != 32:
            raise expected(
                "smp encoder output_stride", "32: strides are the architecture's", output_stride, "stem_stride"
            )
        self.architecture, self.depth, self.options = architecture, depth, options
        self._build(in_channels)

    def _build(self, in_channels: int) -> None:
        self.model = create_model(
            self.architecture, features_only=True, num_classes=0, in_channels=in_channels, **self.options
        )
        levels = [math.log2(max(info["reduction"])) for info in self.model.feature_info]
        where = f"smp encoder {self.architecture}"
        if any(level != int(level) for level in levels):
            strides = [info["reduction"] for info in self.model.feature_info]
            raise expected(where, "strides that are powers of two", strides, "stem_stride 2, 4 or 8")
        if self.depth not in levels:
            fits = ", ".join(str(int(level)) for level in levels)
            raise expected(f"{where} depth", f"one of {fits}, for maps that it has", self.depth, "encoder_depth")
        self.levels = [int(level) for level in levels if level <= self.depth]
        widths = dict(zip(self.levels, (info["num_chs"] for info in self.model.feature_info), strict=False))
        self.out_channels = [in_channels, *(widths.get(level, 0) for level in range(1, self.depth + 1))]

    @property
    def output_stride(self) -> int:
        """Stride of the last map."""
        return 2**self.depth

    def set_in_channels(self, in_channels: int, pretrained: bool = True) -> None:
        """Build again for other image channels; loaded weights are adapted as everywhere in mixlab."""
        if in_channels != self.out_channels[0]:
            self._build(in_channels)

    def make_dilated(self, output_stride: int) -> None:
        """Refused: strides are the architecture's."""
        raise expected("smp encoder output_stride", "32", output_stride, "the option stem_stride")

    def forward(self, x: Tensor) -> list[Tensor]:
        """The image and the maps at strides 2, 4, ...; where there is none, one without channels, as smp has it."""
        found = dict(zip(self.levels, self.model.forward_stages(x), strict=False))
        maps = [x]
        for level in range(1, self.depth + 1):
            size = [math.ceil(n / 2**level) for n in x.shape[2:]]
            maps.append(found[level] if level in found else x.new_empty(x.shape[0], 0, *size))
        return maps


def encoder(architecture: str, *, in_channels: int = 3, depth: int = 5, **options: Any) -> Encoder:
    """An encoder for decoders of smp, see :class:`Encoder`; ``smp.decoders.unet.decoder.UnetDecoder`` and the like take
    its ``out_channels``."""
    return Encoder(architecture, in_channels=in_channels, depth=depth, **options)


def register(name: str, architecture: str, **options: Any) -> None:
    """Let smp's models know an encoder ``name``: ``smp.Unet(name, encoder_weights=None)``.

    Args:
        name: a name that smp does not have.
        architecture: one of ``mixlab.list_models()`` that is a MetaFormer.
        options: of :func:`mixlab.create_model`; weights by ``pretrained``.

    Raises:
        UserError: a name that is taken or an unknown architecture.
    """
    taken = encoders.get(name)
    if name.startswith("tu-") or (taken is not None and not isinstance(taken["encoder"], partial)):
        raise expected("smp encoder name", "a name that smp does not have", Quoted(repr(name)), f"mixlab_{name}")
    if architecture not in ARCHITECTURES:
        raise unknown("architecture", architecture, ARCHITECTURES)
    build = partial(Encoder, architecture, **options)
    encoders[name] = {"encoder": build, "params": {}, "pretrained_settings": {}}
