"""The backbone: stages and a head."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from mixlab.cost import Cost, Size, linear
from mixlab.embeddings import GlobalTokens
from mixlab.errors import Quoted, UserError, expected
from mixlab.heads import HEADS
from mixlab.metaformer.config import MetaFormerConfig
from mixlab.metaformer.stage import Stage
from mixlab.norms import build_norm, norm_cost
from mixlab.ops.convs import channels_last
from mixlab.ops.windows import check_map, per_axis


class MetaFormer(nn.Module):
    """The backbone with its head: ``(B, in_channels, *spatial)`` to logits ``(B, num_classes)``, or to a list of maps.

    Attributes:
        config: everything the model was built from.
        feature_info: per stage ``num_chs``, ``reduction`` (stride per axis) and ``module``.
        events: what was decided silently otherwise, such as tokens that bypass a mixer.
        new_parameters: names of entries that loading or swapping left without weights; empty where nothing was loaded.
    """

    def __init__(self, config: MetaFormerConfig) -> None:
        super().__init__()
        self.config = config
        dims, tokens = config.spatial_dims, config.global_tokens
        grid = None if config.image_size is None else per_axis(config.image_size, dims, "image_size")
        self.stages = nn.ModuleList()
        self.feature_info: list[dict[str, Any]] = []
        self.events: list[dict[str, str]] = []
        self.new_parameters: set[str] = set()
        dim_in, reduction = config.in_channels, (1,) * dims
        for index, (stage, rates) in enumerate(zip(config.stages, config.drop_paths(), strict=True)):
            active = tokens if tokens and index >= tokens.start_stage else None
            module = Stage(stage, dim_in, rates, dims, grid, active)
            self.stages.append(module)
            grid = None if grid is None else module.embed.output_size(grid)
            reduction = tuple(r * s for r, s in zip(reduction, module.embed.reduction, strict=True))
            self.feature_info.append({"num_chs": stage.width, "reduction": reduction, "module": f"stages.{index}"})
            dim_in = stage.width
            self._record_bypass(module, index, active)
        self.out_norms = nn.ModuleList(
            build_norm(s.out_norm if config.features_only else None, s.width, dims) for s in config.stages
        )
        self._make_tokens(tokens)
        self.head = (
            None if config.features_only else HEADS.build(config.head, dim_in, config.num_classes, spatial_dims=dims)
        )
        _initialise(self, config.conv_init)

    def each_stage(self) -> Iterator[Stage]:
        """The stages, in order."""
        for stage in self.stages:
            assert isinstance(stage, Stage)
            yield stage

    def _make_tokens(self, tokens: GlobalTokens | None) -> None:
        if tokens is None:
            return
        widths = [s.width for s in self.config.stages]
        if not 0 <= tokens.start_stage < len(widths):
            raise expected("global_tokens start_stage", f"a stage from 0 to {len(widths) - 1}", tokens.start_stage)
        self.tokens = nn.Parameter(torch.zeros(1, tokens.count, widths[tokens.start_stage]).normal_(std=0.02))
        later = range(tokens.start_stage + 1, len(widths))
        self.token_projections = nn.ModuleDict({str(i): nn.Linear(widths[i - 1], widths[i]) for i in later})

    def _record_bypass(self, stage: Stage, index: int, tokens: GlobalTokens | None) -> None:
        names = sorted({type(b.token_mixer).__name__ for b in stage.each_block() if tokens and not b.takes_tokens})
        if names:
            message = f"stage {index}: global tokens bypass {', '.join(names)}, which takes none"
            self.events.append({"kind": "tokens_bypass", "message": message})

    def _run(self, x: Tensor, last: int | None = None) -> tuple[list[Tensor], Tensor | None]:
        """Maps after every stage up to the ``last``, and the global tokens then."""
        self._check(x)
        x = channels_last(x)  # as pointwise layers leave every later map: then nothing between them needs a copy
        maps: list[Tensor] = []
        tokens: Tensor | None = None
        start = self.config.global_tokens.start_stage if self.config.global_tokens else -1
        for index, stage in enumerate(self.each_stage()):
            if index == start:
                tokens = self.tokens.expand(x.shape[0], -1, -1)
            elif tokens is not None:
                tokens = self.token_projections[str(index)](tokens)
            x, tokens = stage(x, tokens)
            maps.append(x)
            if index == last:
                break
        return maps, tokens

    def _check(self, x: Tensor) -> None:
        check_map(x.shape, self.config.in_channels, self.config.spatial_dims, "model")
        if not torch.compiler.is_compiling():  # a traced size may be symbolic
            self.stage_sizes(tuple(x.shape[2:]))

    def forward_stages(self, x: Tensor) -> list[Tensor]:
        """Maps of every stage, at strides ``feature_info[i]["reduction"]``, each through its output norm."""
        return [norm(m) for norm, m in zip(self.out_norms, self._run(x)[0], strict=True)]

    def forward_features(self, x: Tensor) -> Tensor:
        """The last map ``(B, C, *spatial)``."""
        return self._run(x)[0][-1]

    def forward_head(self, x: Tensor, tokens: Tensor | None = None, pre_logits: bool = False) -> Tensor:
        """Logits (or what the classifier sees) from the last map, or from the class token where the model has one."""
        if self.head is None:
            raise expected("forward_head", "a model with a head", Quoted("features_only=True"), "features_only=False")
        if self.config.global_tokens and self.config.global_tokens.class_token:
            if tokens is None:
                raise expected("forward_head", "the global tokens, as the model classifies from one", None)
            x = tokens[:, 0].reshape(*tokens.shape[::2], *(1,) * self.config.spatial_dims)
        return self.head.pre_logits(x) if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        if self.head is None:
            return self.forward_stages(x)
        maps, tokens = self._run(x)
        return self.forward_head(maps[-1], tokens)

    def stage_sizes(self, size: Size) -> list[Size]:
        """Size of every stage's map for an image of ``size``; UserError when the image is too small."""
        sizes: list[Size] = []
        for index, stage in enumerate(self.each_stage()):
            try:
                size = stage.embed.output_size(size)
            except UserError as error:
                raise UserError(f"stage {index}: {error}") from None
            sizes.append(size)
        return sizes

    def reset_classifier(self, num_classes: int) -> None:
        """A new classifier for ``num_classes``; with 0 the model returns pooled features."""
        if self.head is None:
            raise expected("reset_classifier", "a model with a head", Quoted("features_only=True"))
        self.config = dataclasses.replace(self.config, num_classes=num_classes)
        somewhere = next(self.stages.parameters())
        self.head.reset(num_classes)
        self.head.to(somewhere.device, somewhere.dtype)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward pass: less memory, more time, same result."""
        for stage in self.each_stage():
            stage.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that optimisers should not shrink, beside vectors: tokens, and what parts list in
        ``no_decay`` (positions, temperatures, position bias)."""
        names = {name for name, _ in self.named_parameters() if name == "tokens"}
        for prefix, module in self.named_modules():
            names |= {f"{prefix}.{name}" for name in getattr(module, "no_decay", ())}
        return names

    def fuse(self) -> MetaFormer:
        """Bring every part with a training form into its deployment form, in place; for evaluation only."""
        if self.training:
            raise expected("fuse", "a model in evaluation mode", Quoted("training mode"), "model.eval().fuse()")
        for parent in list(self.modules()):
            for name, child in parent.named_children():
                if child is not self and callable(getattr(child, "fuse", None)):
                    setattr(parent, name, child.fuse())  # type: ignore[operator]
        return self

    def cost(self, size: Size) -> Cost:
        """Cost for one image of ``size`` (see :mod:`mixlab.cost`), with its global tokens."""
        tokens, total, width = self.config.global_tokens, Cost(), 0
        for index, (stage, norm) in enumerate(zip(self.each_stage(), self.out_norms, strict=True)):
            count = tokens.count if tokens and index >= tokens.start_stage else 0
            if tokens and index == tokens.start_stage:
                total += Cost(parameters=self.tokens.numel())
            elif count:
                total += linear(width, stage.config.width, count)
            width = stage.config.width
            total += stage.cost(size, count)
            size = stage.embed.output_size(size)
            total += norm_cost(norm, size)
        if tokens and tokens.class_token:
            size = (1,) * len(size)  # what the head sees
        return total + (self.head.cost(size) if self.head is not None else Cost())


def _initialise(module: nn.Module, conv_init: str = "default") -> None:
    """Truncated normal (0.02) and zero bias for linear layers; convolutions as ``MetaFormerConfig.conv_init`` says.

    A part with ``keeps_init = True`` has set its own parameters and is left alone.
    """
    if getattr(module, "keeps_init", False):
        return
    is_conv = isinstance(module, nn.modules.conv._ConvNd)
    if isinstance(module, nn.Linear) or (is_conv and conv_init == "trunc_normal"):
        nn.init.trunc_normal_(module.weight, std=0.02)  # type: ignore[arg-type]
        _zero(module.bias)
    elif isinstance(module, nn.modules.conv._ConvNd) and conv_init == "fan_out":
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
        _zero(module.bias)
    for child in module.children():
        _initialise(child, conv_init)


def _zero(bias: Any) -> None:
    if bias is not None:
        nn.init.zeros_(bias)
