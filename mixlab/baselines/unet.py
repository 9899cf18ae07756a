"""MONAI's UNet, alone and on a patch embedding: what dense MetaFormers are compared with."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mixlab.architectures import Published
from mixlab.baselines.base import Baseline, BaselineConfig, register_baseline
from mixlab.baselines.loading import load_baseline
from mixlab.baselines.padding import cropped, padded
from mixlab.cost import Size
from mixlab.embeddings.conv import ConvEmbedding
from mixlab.errors import Quoted, UserError, expected, unknown
from mixlab.ops.resize import resized
from mixlab.weights import LoadReport


@dataclass(frozen=True, kw_only=True)
class UNetOptions:
    """What can be chosen in a UNet of MONAI."""

    channels: Sequence[int]
    """Of the levels, from the image's side to the bottom; at least 2."""
    strides: Sequence[int] | int = 2
    """Of every level but the bottom, or one for all."""
    residual_units: int = 2
    """Convolutions of each level's residual unit; 0 for one plain convolution."""
    norm: str = "instance"
    """``instance`` or ``batch``."""

    @classmethod
    def of(cls, given: Mapping[str, Any], channels: Sequence[int], where: str) -> UNetOptions:
        """Options of a user, over the default channels.

        Raises:
            UserError: an unknown one, or one that no network can have.
        """
        known = [f.name for f in dataclasses.fields(cls)]
        for key in given:
            if key not in known:
                raise unknown(f"option of {where}", key, known)
        made = cls(**{"channels": channels, **given})
        if len(made.channels) < 2 or any(not isinstance(c, int) or c < 1 for c in made.channels):
            raise expected(f"{where} channels", "at least two positive numbers", made.channels, str(tuple(channels)))
        strides = made.each_stride()
        if len(strides) != len(made.channels) - 1 or any(not isinstance(s, int) or s < 1 for s in strides):
            want = f"one of at least 1 for all levels, or {len(made.channels) - 1} of them"
            raise expected(f"{where} strides", want, made.strides, "2")
        if not isinstance(made.residual_units, int) or made.residual_units < 0:
            raise expected(f"{where} residual_units", "at least 0", made.residual_units, "2")
        if made.norm not in ("instance", "batch"):
            raise expected(f"{where} norm", "'instance' or 'batch'", made.norm)
        return made

    def each_stride(self) -> list[int]:
        """One stride for every level but the bottom."""
        return [self.strides] * (len(self.channels) - 1) if isinstance(self.strides, int) else list(self.strides)


class _UNet(Baseline):
    """What both have in common: MONAI's network at ``body``, and images of any size."""

    takes = frozenset({"image_size", "dropout", "options"})
    dense = True
    listed_classes = 2
    published = Published(
        paper="arXiv:1505.04597", repository="Project-MONAI/MONAI", note="dense, with 2 classes; residual units"
    )
    default_channels: ClassVar[tuple[int, ...]]

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__(config)
        from monai.networks.nets.unet import UNet as Network  # imported late: MONAI takes seconds

        where = f"model {config.architecture}"
        if config.features_only:
            raise expected(where, "logits at every pixel", Quoted("features_only=True"), "features_only=False")
        if config.num_classes < 1:
            raise expected(f"{where} num_classes", "at least 1", config.num_classes)
        self.options = UNetOptions.of(config.options, self.default_channels, where)
        strides = self.options.each_stride()
        self.multiple = math.prod(strides)
        self.stem = self.make_stem()
        self.body: Any = Network(
            spatial_dims=config.spatial_dims,
            in_channels=config.in_channels if self.stem is None else self.stem.dim,
            out_channels=config.num_classes,
            channels=tuple(self.options.channels),
            strides=tuple(strides),
            num_res_units=self.options.residual_units,
            norm=self.options.norm,
            dropout=config.dropout,
        )

    def make_stem(self) -> ConvEmbedding | None:
        """What stands before MONAI's network; None for nothing."""
        return None

    @property
    def head(self) -> nn.Module | None:  # type: ignore[override]
        """The last level upward, which makes the logits."""
        return self.body.model[2]

    def stage_sizes(self, size: Size) -> list[Size]:
        """No sizes of stages, but a UserError for an image that leaves one position at the bottom, which instance
        norm cannot normalise."""
        where = f"model {self.config.architecture}"
        try:
            inner = size if self.stem is None else self.stem.output_size(size)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        if max(inner) <= self.multiple:
            least = (self.multiple + 1) * (1 if self.stem is None else max(self.stem.stride))
            raise expected(f"{where} image", "more than one position at the bottom level", size, f"{least} on an axis")
        return []

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_channels, *spatial)`` to ``(B, num_classes, *spatial)``."""
        self.check(x)
        if not torch.compiler.is_compiling():  # a traced size may be symbolic
            self.stage_sizes(tuple(x.shape[2:]))
        inner = x if self.stem is None else self.stem(x)
        logits = cropped(self.body(padded(inner, self.multiple)), inner.shape[2:])
        return resized(logits, x.shape[2:])

    def load(self, source: str | PathLike[str]) -> LoadReport:
        """Load a file of such a network of mixlab; the last level stays fresh where it has other classes.

        Raises:
            UserError: the file cannot be read, or holds another network.
        """
        return load_baseline(self, source, stem="stem.proj.weight", classifier="body.model.2")


@register_baseline("unet")
class UNet(_UNet):
    """MONAI's UNet with residual units, 2D and 3D (and 1D): levels of 64, 128, 320, 512 and 1024 channels, stride 2.

    ``options`` of the model: ``channels``, ``strides``, ``residual_units`` and ``norm``, see :class:`UNetOptions`.
    Images whose sizes are no multiples of the strides' product (16) get zeros at the end of each axis, and the logits
    are cut to the image. The fifth level was added in the study to match a MetaFormer's parameters.

    Source: Ronneberger et al. (arXiv:1505.04597); Kerfoot et al. (doi:10.1007/978-3-030-12029-0_40) for the residual
    units; widths of the local-attention study that mixlab reproduces.
    """

    default_channels = (64, 128, 320, 512, 1024)


@register_baseline("unet_on_patch_embedding")
class UNetOnPatchEmbedding(_UNet):
    """PoolFormer's patch embedding (a 7x7 convolution of stride 4), MONAI's UNet with levels of 64, 128, 320 and 512
    channels on it, and the logits resized to the image.

    It shows what is lost by patches alone: as a MetaFormer it sees stride 4 at best. Options as of ``unet``; the
    embedding has as many channels as the first level. Zeros are put around the embedded map, likewise.

    Source: the local-attention study that mixlab reproduces.
    """

    default_channels = (64, 128, 320, 512)

    def make_stem(self) -> ConvEmbedding:
        config, dim = self.config, self.options.channels[0]
        return ConvEmbedding(
            config.in_channels, dim, spatial_dims=config.spatial_dims, kernel_size=7, stride=4, padding=2
        )
