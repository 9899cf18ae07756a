"""Configuration of a MetaFormer: plain dataclasses, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass, field

from mixlab.embeddings.tokens import GlobalTokens
from mixlab.errors import expected
from mixlab.ops.windows import check_spatial_dims
from mixlab.registry import Part


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One stage."""

    depth: int
    """Number of blocks."""
    width: int
    """Channels."""
    embedding: Part
    """Patch embedding before the blocks: the stem in the first stage, downsampling later."""
    mixers: tuple[Part, ...]
    """Token mixers, cycled over the blocks."""
    channel_mixers: tuple[Part, ...] = (Part("mlp"),)
    """Channel mixers, cycled over the blocks."""
    norm: Part | None = field(default_factory=lambda: Part("group_norm"))
    """Norm before each mixer; None for blocks without."""
    position: Part | None = None
    """Position added once, before the first block."""
    block_position: Part | None = None
    """Position branch at the head of every block."""
    layer_scale: float | None = None
    """Start value of the learned factor on each branch; None for no factor."""
    res_scale: bool = False
    """Learned factor on each shortcut, starting at 1."""
    repeat: int = 1
    """How often the same blocks are applied, with shared weights."""
    stage_norm: Part | None = None
    """Norm after the last block, in the path."""
    out_norm: Part | None = None
    """Norm on the returned copy only, of a model with ``features_only``."""

    def __post_init__(self) -> None:
        for name in ("depth", "width", "repeat"):
            if getattr(self, name) < 1:
                raise expected(f"stage {name}", "at least 1", getattr(self, name))
        for name in ("mixers", "channel_mixers"):
            if not getattr(self, name):
                raise expected(f"stage {name}", "at least one part", ())

    def mixer_of(self, block: int) -> Part:
        """The token mixer of a block."""
        return self.mixers[block % len(self.mixers)]

    def channel_mixer_of(self, block: int) -> Part:
        """The channel mixer of a block."""
        return self.channel_mixers[block % len(self.channel_mixers)]


@dataclass(frozen=True, kw_only=True)
class MetaFormerConfig:
    """A whole model."""

    stages: tuple[StageConfig, ...]
    """From the first resolution to the last."""
    head: Part = field(default_factory=lambda: Part("linear"))
    """Classification head."""
    num_classes: int = 1000
    """Logits; 0 for pooled features."""
    in_channels: int = 3
    """Channels of the image."""
    spatial_dims: int = 2
    """1, 2 or 3."""
    features_only: bool = False
    """Return the maps of all stages instead of logits."""
    drop_path_rate: float = 0.0
    """Stochastic depth: the probability to skip a branch (of the last block, or of all)."""
    drop_path_schedule: str = "linear"
    """``linear`` from 0 at the first block to the rate at the last, or ``constant``."""
    image_size: int | tuple[int, ...] | None = None
    """Size of the training images; needed by parts that live on a grid only."""
    global_tokens: GlobalTokens | None = None
    """Class token and registers."""
    conv_init: str = "default"
    """Start of convolutions: torch's ``default``, ``trunc_normal`` (0.02), or ``fan_out`` (normal,
    ``sqrt(2 / fan_out)``); the latter two with zero biases."""
    architecture: str | None = None
    """Name in ``mixlab.architectures`` that the configuration comes from."""

    def __post_init__(self) -> None:
        check_spatial_dims(self.spatial_dims, "model")
        if not self.stages:
            raise expected("model stages", "at least one stage", ())
        for name, least in (("num_classes", 0), ("in_channels", 1)):
            if getattr(self, name) < least:
                raise expected(f"model {name}", f"at least {least}", getattr(self, name))
        if not 0.0 <= self.drop_path_rate < 1.0:
            raise expected("model drop_path_rate", "a probability in [0, 1)", self.drop_path_rate, "0.1")
        if self.conv_init not in ("default", "trunc_normal", "fan_out"):
            raise expected("model conv_init", "'default', 'trunc_normal' or 'fan_out'", self.conv_init)
        if self.drop_path_schedule not in ("linear", "constant"):
            raise expected("model drop_path_schedule", "'linear' or 'constant'", self.drop_path_schedule)

    def drop_paths(self) -> list[list[float]]:
        """Rate of every block, stage by stage."""
        depths = [s.depth for s in self.stages]
        total = sum(depths)
        linear = self.drop_path_schedule == "linear"
        rates = [self.drop_path_rate * (i / max(total - 1, 1) if linear else 1.0) for i in range(total)]
        starts = [sum(depths[:i]) for i in range(len(depths))]
        return [rates[a : a + d] for a, d in zip(starts, depths, strict=True)]
