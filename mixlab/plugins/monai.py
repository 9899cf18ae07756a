"""MetaFormers as encoders of MONAI's ``FlexibleUNet``, 2D and 3D.

Importing this file registers every architecture of mixlab under its name:

>>> import mixlab.plugins.monai
>>> from monai.networks.nets import FlexibleUNet
>>> FlexibleUNet(in_channels=1, out_channels=5, backbone="metaformer_s12", spatial_dims=3)

FlexibleUNet has no place for an encoder's options; :func:`register` gives them under a name of one's own:

>>> mixlab.plugins.monai.register("s12_local", "metaformer_s12", token_mixer="local_attention", kernel_size=5)
>>> FlexibleUNet(in_channels=1, out_channels=5, backbone="s12_local")

Sizes are multiples of the last map's stride (32): MONAI's decoder doubles each map, and makes up for no more than one
position that is missing.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from monai.networks.blocks import BaseEncoder
from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE
from torch import Tensor, nn

from mixlab.architectures import ARCHITECTURES
from mixlab.embeddings import EMBEDDINGS
from mixlab.errors import Quoted, expected, unknown
from mixlab.metaformer import MetaFormerConfig
from mixlab.models import ModelConfig, create_model


class Encoder(nn.Module, BaseEncoder):
    """A MetaFormer with the interface of MONAI's encoders: maps at strides 2, 4, ... up to its last.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        pretrained: start from the published weights, where timm hosts them.
        architecture: one of ``mixlab.list_models()`` that is a MetaFormer.
        options: of :func:`mixlab.create_model`.

    Raises:
        UserError: an option that does not fit.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 3,
        pretrained: bool = False,
        architecture: str = "metaformer_s12",
        **options: Any,
    ) -> None:
        super().__init__()
        source = options.pop("pretrained_from", None) or pretrained
        self.model = create_model(
            architecture,
            features_only=True,
            num_classes=0,
            in_channels=in_channels,
            spatial_dims=spatial_dims,
            pretrained=source,
            **options,
        )
        self.levels = [int(math.log2(max(info["reduction"]))) for info in self.model.feature_info]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps at strides 2, 4, ...; where there is none, one without channels.

        Raises:
            UserError: sizes that are no multiples of the last map's stride.
        """
        stride = 2 ** self.levels[-1]
        if any(n % stride for n in x.shape[2:]):
            near = tuple(-(-n // stride) * stride for n in x.shape[2:])
            got = Quoted(str(tuple(x.shape[2:])))
            raise expected("MONAI encoder image", f"sizes that are multiples of {stride}", got, f"padding to {near}")
        found = dict(zip(self.levels, self.model.forward_stages(x), strict=True))
        sizes = {k: [n // 2**k for n in x.shape[2:]] for k in range(1, self.levels[-1] + 1)}
        return [found[k] if k in found else x.new_empty(x.shape[0], 0, *size) for k, size in sizes.items()]

    # What FlexibleUNet asks of a class, which :func:`register` makes for one name each.

    names: tuple[str, ...] = ()
    channels: tuple[int, ...] = ()
    parameters_of: dict[str, Any] = {}  # noqa: RUF012  replaced by a class of one name

    @classmethod
    def get_encoder_names(cls) -> list[str]:
        """The one name of this class."""
        return list(cls.names)

    @classmethod
    def num_outputs(cls) -> list[int]:
        """Number of maps."""
        return [len(cls.channels)]

    @classmethod
    def num_channels_per_output(cls) -> list[tuple[int, ...]]:
        """Channels of the maps."""
        return [cls.channels]

    @classmethod
    def get_encoder_parameters(cls) -> list[dict[str, Any]]:
        """Arguments of the constructor; MONAI fills in the first three."""
        return [{"spatial_dims": 2, "in_channels": 3, "pretrained": False, **cls.parameters_of}]


def register(name: str, architecture: str, **options: Any) -> None:
    """Let ``FlexibleUNet(backbone=name)`` build a MetaFormer.

    Args:
        name: a name that MONAI does not have.
        architecture: one of ``mixlab.list_models()`` that is a MetaFormer.
        options: of :func:`mixlab.create_model`; ``pretrained`` is a file or another source of weights.

    Raises:
        UserError: a name that MONAI has itself, an unknown architecture, strides that do not double from map to map, or
            more than five halvings, which is MONAI's limit.
    """
    taken = FLEXUNET_BACKBONE.register_dict.get(name)
    if taken is not None and not issubclass(taken["type"], Encoder):
        raise expected("MONAI backbone name", "a name that MONAI does not have", name, f"mixlab_{name}")
    if architecture not in ARCHITECTURES:
        raise unknown("architecture", architecture, ARCHITECTURES)
    source = options.pop("pretrained", None)
    config = ModelConfig(name=architecture, **options).configuration()
    strides = _strides(config)
    levels = [math.log2(s) for s in strides]
    if levels != [levels[0] + i for i in range(len(levels))] or levels[0] not in range(1, 6) or levels[-1] > 5:
        raise expected("MONAI backbone", "strides that double from map to map, 2 to 32", strides, "stem_stride=4")
    channels = (*(0 for _ in range(1, int(levels[0]))), *(stage.width for stage in config.stages))
    given = {"architecture": architecture, **options, **({"pretrained_from": source} if source is not None else {})}
    made = type(f"Encoder_{name}", (Encoder,), {"names": (name,), "channels": channels, "parameters_of": given})
    FLEXUNET_BACKBONE.register_class(cast(Any, made))


def _strides(config: MetaFormerConfig) -> list[int]:
    """Strides of the maps against the image, the largest of the axes."""
    stride, found = 1, []
    for stage in config.stages:
        with torch.device("meta"):  # no memory, no random numbers
            stride *= max(EMBEDDINGS.build(stage.embedding, 1, stage.width, spatial_dims=2).reduction)
        found.append(stride)
    return found


for _name in ARCHITECTURES:
    register(_name, _name)
