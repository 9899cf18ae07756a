"""Models by name."""

from __future__ import annotations

import dataclasses
from os import PathLike, fspath
from typing import Any

import torch

from mixlab.architectures import ARCHITECTURES, published
from mixlab.baselines import baseline_info, is_baseline, list_baselines
from mixlab.errors import expected, nearest
from mixlab.metaformer import MetaFormer
from mixlab.model_config import WEIGHTS_OF, ModelConfig
from mixlab.weights.sources import OFFICIAL

__all__ = ["WEIGHTS_OF", "ModelConfig", "create_model", "list_models", "model_info"]


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
    spatial_dims: int = 2,
    features_only: bool = False,
    pretrained: str | PathLike[str] | bool | None = None,
    **options: Any,
) -> MetaFormer:
    """Build a model by its published name, with the token mixer of your choice.

    Args:
        name: one of :func:`list_models`, or ``timm:NAME`` for any model of timm. Baselines (``resnet18``, ...) take
            few of the options, and no other token mixer.
        num_classes: logits; 0 for pooled features ``(B, C)``. With a decoder, logits at every pixel, at least 1.
        in_channels: channels of the image.
        spatial_dims: 1, 2 or 3; images are ``(B, in_channels, *spatial)``, axes in ``(D, H, W)`` order.
        features_only: return the maps of all stages, at strides 4, 8, 16, 32 (see ``model.feature_info``).
        pretrained: weights to start from: a checkpoint file with official names or our own, an ``https://`` URL,
            ``timm:NAME`` for weights of timm's hub, True or ``official`` for the published ones where timm hosts them.
            A classifier for another number of classes, a stem for other channels and a token mixer of another kind
            stay fresh or are adapted, and ``model.events`` says so; anything else that does not fit raises.
        options: fields of :class:`ModelConfig`: ``token_mixer``, ``kernel_size``, ``stages="PPTT"``,
            ``drop_path_rate``, ``image_size``, ``init="pooling"`` or ``"warm"`` for how exchanged mixers start,
            ``inflate="centre"`` or ``"mean"`` for 2D weights in a 3D model, ``decoder="segformer"`` for logits at every
            pixel (a :class:`mixlab.dense.DenseModel`), ...

    Raises:
        UserError: an unknown name or option (with the nearest), a kernel that is even, a head size that does not divide
            the width.

    Example:
        >>> model = create_model("metaformer_s12", token_mixer="local_attention", kernel_size=5, stages="PPTT")
    """
    known = {f.name for f in dataclasses.fields(ModelConfig)} - {"name"}
    for option in options:
        if option not in known:
            close = nearest(option, known)
            raise expected(
                "create_model", "a known option", option, repr(close[0]) if close else ", ".join(sorted(known))
            )
    if isinstance(pretrained, bool):
        pretrained = OFFICIAL if pretrained else None
    source = None if pretrained is None else fspath(pretrained)
    config = ModelConfig(name=name, pretrained=source, **options)
    return config.create(num_classes, in_channels, spatial_dims, features_only=features_only)


def list_models() -> list[str]:
    """Names that :func:`create_model` knows."""
    return sorted([*ARCHITECTURES, *list_baselines()])


def model_info(name: str) -> dict[str, Any]:
    """What a model has and costs, beside what was published of it.

    Returns:
        ``parameters`` and ``macs`` (needed, for one image of ``image_size``), counted from the parts' formulas; of a
        model that was published also ``published_parameters`` (millions), ``published_macs`` (thousand millions),
        ``published_top1`` (per cent), ``paper``, ``repository`` and ``note``, each None where nothing is known. A
        baseline has no ``mixers``; without the package that it needs, ``parameters`` and ``macs`` are None.
    """
    if is_baseline(name):
        return baseline_info(name)
    said = published(name)
    with torch.device("meta"):  # no memory, no random numbers
        model = create_model(name)
    size = said.image_size if said else 224
    cost = model.cost((size,) * 2)
    stages = model.config.stages
    return {
        "name": name,
        "depths": [s.depth for s in stages],
        "widths": [s.width for s in stages],
        "mixers": [" ".join(dict.fromkeys(p.name for p in s.mixers)) for s in stages],
        "image_size": size,
        "parameters": cost.parameters,
        "macs": cost.macs_needed,
        "published_parameters": said.parameters if said else None,
        "published_macs": said.macs if said else None,
        "published_top1": said.top1 if said else None,
        "paper": said.paper if said else None,
        "repository": said.repository if said else None,
        "note": said.note if said else None,
    }
