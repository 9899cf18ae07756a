"""Every architecture of mixlab as a model of timm (``pip install "mixlab[timm]"``).

Importing this file registers every MetaFormer of ``mixlab.list_models()`` with timm:

>>> import timm, mixlab.plugins.timm
>>> model = timm.create_model("metaformer_s12", token_mixer="local_attention", kernel_size=5, features_only=True)

A name that timm already has gets the prefix ``mixlab_`` (``mixlab_poolformer_s12``); :data:`NAMES` tells which. An
architecture that is registered later is added by :func:`register`.

Beside timm's own arguments, ``create_model`` takes the options of :class:`mixlab.models.ModelConfig`; timm's
``img_size`` is ``image_size``, ``drop_rate`` is the dropout before the classifier alone, and ``drop_path_rate`` keeps
the published rate unless given. No weights are downloaded: a file with official names or our own is loaded by
``create_model(name, pretrained=True, pretrained_cfg_overlay={"file": "official.pth"})``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from mixlab.architectures import ARCHITECTURES, Published, published
from mixlab.embeddings import EMBEDDINGS
from mixlab.errors import expected
from mixlab.heads import HEADS
from mixlab.heads.base import check_pool
from mixlab.metaformer import MetaFormer, MetaFormerConfig
from mixlab.models import ModelConfig
from mixlab.norms import build_norm
from mixlab.ops.windows import per_axis
from mixlab.registry import Part
from mixlab.weights import own_names

NAMES: dict[str, str] = {}
"""timm's name to mixlab's, for every architecture that is registered."""
default_cfgs: dict[str, Any] = {}  # timm looks for it by this name, in the module of a registered function


class TimmMetaFormer(MetaFormer):
    """A MetaFormer with the attributes and methods of timm's models.

    Args:
        architecture: one of ``mixlab.list_models()``.
        in_chans: channels of the image.
        num_classes: logits; 0 for pooled features.
        global_pool: ``avg``, ``max``, or the empty string for no pooling (0 classes only).
        img_size: size of the images; needed by parts that live on a grid only.
        drop_rate: dropout before the classifier.
        device: of the parameters.
        dtype: of the parameters.
        options: fields of :class:`mixlab.models.ModelConfig`; ``out_norm`` normalises the intermediate maps.

    Raises:
        UserError: what does not fit.
    """

    def __init__(
        self,
        architecture: str,
        *,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        img_size: int | Sequence[int] | None = None,
        drop_rate: float = 0.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        model = ModelConfig(name=architecture, image_size=img_size, **options)
        if model.has_start:
            hint = "mixlab.create_model, or mixlab.weights.swap_mixers on this model"
            raise expected("timm.create_model", "weights by timm's own arguments", "init, pretrained or inflate", hint)
        if model.decoder is not None:
            hint = "mixlab.create_model, or features_only=True"
            raise expected("timm.create_model", "a model that classifies or returns maps", "decoder", hint)
        config = model.configuration(num_classes=num_classes, in_channels=in_chans)
        # A head of the user's needs no option that nobody asked for.
        asked: dict[str, Any] = {"dropout": drop_rate} if drop_rate else {}
        pool = check_pool(global_pool or "none", num_classes)
        asked |= {"pool": pool} if pool != "avg" else {}
        with nullcontext() if device is None else torch.device(device):
            super().__init__(dataclasses.replace(config, head=config.head.with_options(**asked)))
            if model.out_norm is not None:
                self.out_norms = nn.ModuleList(build_norm(s.out_norm, s.width, 2) for s in config.stages)
        self.to(dtype=dtype)
        self.in_chans, self.num_classes, self.drop_rate, self.global_pool = (
            in_chans,
            num_classes,
            drop_rate,
            global_pool,
        )
        self.num_features = config.stages[-1].width
        self.head_hidden_size = _features_of(config.head, self.num_features)
        for info in self.feature_info:
            info["reduction"] = max(info["reduction"])

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The last map, and the maps of the stages.

        Args:
            x: image ``(B, in_chans, H, W)``.
            indices: the last n stages for an int, all for None, those given otherwise.
            norm: no effect, as in timm's MetaFormer: maps have no norm but that of the option ``out_norm``.
            stop_early: run no stage after the last that is asked for.
            output_fmt: ``NCHW``.
            intermediates_only: return the list alone.
        """
        if output_fmt != "NCHW":
            raise expected("forward_intermediates output_fmt", "'NCHW'", output_fmt)
        taken, last = feature_take_indices(len(self.stages), indices)
        maps, _ = self._run(x, last if stop_early else None)
        intermediates = [self.out_norms[i](m) for i, m in enumerate(maps) if i in taken]
        return intermediates if intermediates_only else (maps[-1], intermediates)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last that is asked for, and the head; returns the stages' indices."""
        taken, last = feature_take_indices(len(self.stages), indices)
        if prune_head or last < len(self.stages) - 1:
            self.stages, self.out_norms = self.stages[: last + 1], self.out_norms[: last + 1]
            nothing = Part("linear", {"norm": None, "pool": "none"})
            self.config = dataclasses.replace(
                self.config, stages=self.config.stages[: last + 1], head=nothing, num_classes=0
            )
            self.num_features = self.head_hidden_size = self.config.stages[-1].width
            self.head = HEADS.build(nothing, self.num_features, 0, spatial_dims=2).train(self.training)
            self.num_classes, self.global_pool = 0, ""
        return taken

    def reset_classifier(
        self, num_classes: int, global_pool: str | None = None, device: Any = None, dtype: torch.dtype | None = None
    ) -> None:
        """A new classifier and, if given, another pooling: ``avg``, ``max``, or the empty string for none."""
        assert self.head is not None
        if global_pool is not None:
            check_pool(global_pool or "none", num_classes)
            self.head.pool, self.global_pool = global_pool or "none", global_pool
        super().reset_classifier(num_classes)
        backbone = next(self.stages.parameters())
        self.head.to(backbone.device if device is None else device, backbone.dtype if dtype is None else dtype)
        self.head.train(self.head.training)
        self.num_classes = num_classes

    def get_classifier(self) -> nn.Module | tuple[nn.Module, ...]:
        """The last layer of the head, or all of those that make logits."""
        assert self.head is not None
        if not self.num_classes:
            return nn.Identity()
        found = tuple(self.head.get_submodule(n) for n in _classifiers(self.config.head, self.num_features))
        return found[0] if len(found) == 1 else found

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Names of parameters to depth: the stem, every block (or, if ``coarse``, every stage), then the rest."""
        blocks = [
            (r"^stages\.(\d+)\.blocks\.(\d+)\.", None),
            (r"^stages\.(\d+)\.(?:embed|position)\.", (0,)),  # with the stage's first block
            (r"^stages\.(\d+)\.norm\.", (99999,)),  # timm's number for "with the one before", the stage's last
        ]
        return {"stem": r"^stages\.0\.(?:embed|position)\.", "blocks": r"^stages\.(\d+)\." if coarse else blocks}


def _under_our_names(state: Mapping[str, Tensor], model: TimmMetaFormer) -> dict[str, Tensor]:
    """What timm calls a filter of a checkpoint."""
    return own_names(model, state)


def register() -> list[str]:
    """Register the architectures that timm does not have from us yet; returns timm's names of those."""
    added = []
    for name in sorted(set(ARCHITECTURES) - set(NAMES.values())):
        timms = f"mixlab_{name}" if timm.is_model(name) else name
        default_cfgs.update(generate_default_cfgs({timms: _pretrained_cfg(name)}))
        globals()[timms] = register_model(_entry(timms, name))
        NAMES[timms] = name
        added.append(timms)
    return added


def _entry(timms: str, name: str) -> Callable[..., nn.Module]:
    """The function that timm calls to build a model."""

    def build(pretrained: bool = False, **options: Any) -> nn.Module:
        if "image_size" in options:  # timm would add its own default for ``img_size``
            options["img_size"] = options.pop("image_size")
        return build_model_with_cfg(
            TimmMetaFormer,
            timms,
            pretrained,
            architecture=name,
            pretrained_filter_fn=_under_our_names,
            feature_cfg={"feature_cls": "getter", "out_indices": len(ARCHITECTURES[name]().stages)},
            **options,
        )

    build.__name__ = build.__qualname__ = timms
    build.__doc__ = f"``{name}`` of mixlab."
    return build


def _pretrained_cfg(name: str) -> dict[str, Any]:
    """timm's description of a model: how its images are prepared, and the names of its ends."""
    config, said = ARCHITECTURES[name](), published(name)
    size = per_axis(said.image_size if said else config.image_size or 224, 2, "image_size")
    origin = {"origin_url": f"https://github.com/{said.repository}", "paper_ids": said.paper} if said else {}
    return {
        "num_classes": config.num_classes,
        "input_size": (config.in_channels, *size),
        "pool_size": _last_grid(config, size),
        "fixed_input_size": config.image_size is not None,
        "crop_pct": said.crop if said else Published.crop,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": _one_or_all(f"stages.0.embed.{n}" for n in _first_convs(config)),
        "classifier": _one_or_all(f"head.{n}" for n in _classifiers(config.head, config.stages[-1].width)),
        **origin,
    }


def _one_or_all(names: Any) -> str | tuple[str, ...] | None:
    found = tuple(names)
    return found if len(found) > 1 else found[0] if found else None


def _last_grid(config: MetaFormerConfig, size: tuple[int, ...]) -> tuple[int, ...]:
    channels = config.in_channels
    for stage in config.stages:
        with torch.device("meta"):
            size = EMBEDDINGS.build(stage.embedding, channels, stage.width, spatial_dims=2).output_size(size)
        channels = stage.width
    return size


def _first_convs(config: MetaFormerConfig) -> list[str]:
    """Layers of the stem that see the image."""
    stage = config.stages[0]
    return _that_follow(lambda channels: EMBEDDINGS.build(stage.embedding, channels, stage.width, spatial_dims=2))


def _classifiers(head: Part, dim: int) -> list[str]:
    """Layers of a head that make logits."""
    pooling = Part(head.name, {k: v for k, v in head.options.items() if k != "pool"})
    return _that_follow(lambda classes: HEADS.build(pooling, dim, classes, spatial_dims=2))


def _that_follow(make: Callable[[int], nn.Module]) -> list[str]:
    """Names of the convolutions and linear layers whose shape depends on the argument, in order."""
    with torch.device("meta"):
        one, two = (
            {
                n: m.weight.shape
                for n, m in make(k).named_modules()
                if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)
            }
            for k in (1, 2)
        )
    return [n for n in one if one[n] != two.get(n)]


def _features_of(head: Part, dim: int) -> int:
    """What the classifier sees of a map with ``dim`` channels."""
    with torch.device("meta"):
        return HEADS.build(head, dim, 0, spatial_dims=2).eval()(torch.empty(1, dim, 1, 1)).shape[1]


register()
