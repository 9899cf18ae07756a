"""Dense models: an encoder that returns maps, and a decoder that makes a score of each class at every pixel of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mixlab.baselines import Baseline, BaselineConfig
from mixlab.cost import Cost, Size
from mixlab.errors import Quoted, expected
from mixlab.heads import DECODERS
from mixlab.metaformer import MetaFormer, MetaFormerConfig
from mixlab.registry import Part


class DenseModel(nn.Module):
    """``(B, in_channels, *spatial)`` to logits ``(B, num_classes, *spatial)``, for images of any size that the encoder
    takes.

    Args:
        encoder: a model built with ``features_only``.
        decoder: a part of :data:`mixlab.heads.DECODERS`.
        num_classes: logits at every pixel, at least 1.
        has_weights: the encoder started from weights, so that the decoder's parameters are new beside them.

    Attributes:
        encoder: the model that returns maps; mixers are swapped in it.
        decoder: the module in the place of a classification head.

    Raises:
        UserError: an encoder that returns no maps, or a decoder that does not fit them.
    """

    dense = True
    """Logits at every pixel, as of baselines with a decoder of their own."""

    def __init__(
        self,
        encoder: MetaFormer | Baseline,
        decoder: str | Mapping[str, Any] | Part,
        num_classes: int,
        *,
        has_weights: bool = False,
    ) -> None:
        super().__init__()
        config = encoder.config
        if not config.features_only or not encoder.feature_info:
            hint = "features_only=True"
            raise expected("dense model encoder", "a model that returns maps", Quoted(str(config.architecture)), hint)
        self.encoder = encoder
        self.decoder = DECODERS.build(
            decoder,
            [info["num_chs"] for info in encoder.feature_info],
            [info["reduction"] for info in encoder.feature_info],
            num_classes,
            spatial_dims=config.spatial_dims,
        )
        self.has_weights = has_weights

    @property
    def config(self) -> MetaFormerConfig | BaselineConfig:
        """What the encoder was built from."""
        return self.encoder.config

    @property
    def head(self) -> nn.Module:
        """What takes the place of a classification head, and is trained alone on a frozen encoder: the decoder."""
        return self.decoder

    @property
    def stages(self) -> Any:
        """The encoder's stages; empty where it has none."""
        return getattr(self.encoder, "stages", ())

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """Of the encoder's maps."""
        return self.encoder.feature_info

    @property
    def events(self) -> list[dict[str, str]]:
        """What the user should know of the encoder, such as the weights that were loaded."""
        return self.encoder.events

    @property
    def new_parameters(self) -> set[str]:
        """Names of parameters without weights, beside others that have some; empty where nothing was loaded."""
        if not self.has_weights:
            return set()
        fresh = {f"encoder.{name}" for name in self.encoder.new_parameters}
        return fresh | {f"decoder.{name}" for name in self.decoder.state_dict()}

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder.forward_stages(x), x.shape[2:])

    def forward_stages(self, x: Tensor) -> list[Tensor]:
        """The encoder's maps."""
        return self.encoder.forward_stages(x)

    def stage_sizes(self, size: Size) -> list[Size]:
        """Sizes of the encoder's stages for an image of ``size``; UserError when the image is too small."""
        return self.encoder.stage_sizes(size)

    def map_sizes(self, size: Size) -> list[Size]:
        """Sizes of the maps that the decoder gets. A baseline that cannot tell is run once, without memory."""
        found = self.encoder.stage_sizes(size)
        if found:
            return found
        twin = copy.deepcopy(self.encoder).to("meta").eval()
        with torch.no_grad():
            maps = twin.forward_stages(torch.empty(1, self.config.in_channels, *size, device="meta"))
        return [tuple(m.shape[2:]) for m in maps]

    def cost(self, size: Size) -> Cost:
        """Cost for one image of ``size`` (see :mod:`mixlab.cost`): that of the encoder and of the decoder."""
        return self.encoder.cost(size) + self.decoder.cost(self.map_sizes(size), size)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that optimisers should not shrink, beside vectors."""
        return {f"encoder.{name}" for name in self.encoder.no_weight_decay()}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the encoder's blocks in the backward pass: less memory, more time, same result."""
        if not isinstance(self.encoder, MetaFormer):
            name = self.config.architecture
            raise expected("set_grad_checkpointing", "a MetaFormer", name, "a model of `mixlab list models`")
        self.encoder.set_grad_checkpointing(enable)

    def fuse(self) -> DenseModel:
        """Bring every part with a training form into its deployment form, in place; for evaluation only."""
        if self.training:
            raise expected("fuse", "a model in evaluation mode", Quoted("training mode"), "model.eval().fuse()")
        self.encoder, self.decoder = self.encoder.fuse(), self.decoder.fuse()
        return self
