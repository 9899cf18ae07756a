"""The MetaFormer block: norm, token mixer, norm, channel mixer, each pair with a residual."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixlab.channel_mixers import CHANNEL_MIXERS
from mixlab.cost import Cost, Size
from mixlab.embeddings import POSITIONS, GlobalTokens
from mixlab.errors import expected
from mixlab.metaformer.config import StageConfig
from mixlab.mixers import MIXERS
from mixlab.norms import build_norm, norm_cost
from mixlab.ops.passes import add_scaled
from mixlab.registry import Part, Registry


def build_part(registry: Registry[Any], part: Part, dim: int, spatial_dims: int, grid: Size | None) -> Any:
    """A part of a stage; one that lives on a grid gets it, or the error that names ``image_size``."""
    if not getattr(registry[part.name], "needs_grid", False):
        return registry.build(part, dim, spatial_dims=spatial_dims)
    if grid is None:
        raise expected(
            f"{registry.kind} {part.name!r}",
            "a model built with image_size",
            None,
            "image_size=224, the size of your images",
        )
    return registry.build(part, dim, spatial_dims=spatial_dims, grid_size=grid)


def _scale(value: float | None, dim: int) -> nn.Parameter | None:
    return None if value is None else nn.Parameter(torch.full((dim,), float(value)))


class Block(nn.Module):
    """Norm, token mixer, norm, channel mixer, each pair with a residual."""

    def __init__(
        self,
        config: StageConfig,
        index: int,
        drop_path: float,
        spatial_dims: int,
        grid: Size | None,
        tokens: GlobalTokens | None,
    ) -> None:
        super().__init__()
        dim = config.width
        self.spatial_dims, self.drop_path = spatial_dims, drop_path
        mixer, channel_mixer = config.mixer_of(index), config.channel_mixer_of(index)
        self.position = (
            None
            if config.block_position is None
            else build_part(POSITIONS, config.block_position, dim, spatial_dims, grid)
        )
        self.norm1 = build_norm(config.norm, dim, spatial_dims)
        self.token_mixer = build_part(MIXERS, mixer, dim, spatial_dims, grid)
        self.norm2 = build_norm(config.norm, dim, spatial_dims)
        self.channel_mixer = build_part(CHANNEL_MIXERS, channel_mixer, dim, spatial_dims, grid)
        self.layer_scale1, self.layer_scale2 = _scale(config.layer_scale, dim), _scale(config.layer_scale, dim)
        res_scale = 1.0 if config.res_scale else None
        self.res_scale1, self.res_scale2 = _scale(res_scale, dim), _scale(res_scale, dim)
        self.takes_tokens = "tokens" in self.token_mixer.uses
        if tokens and tokens.on_unsupported == "raise" and not self.takes_tokens:
            raise expected(
                f"token mixer {mixer.name!r}", "a mixer that takes global tokens", mixer.name, "on_unsupported='bypass'"
            )

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Map ``(B, C, *spatial)`` and global tokens ``(B, G, C)`` or None, to the same shapes."""
        if self.position is not None:
            x = x + self.position(x)
        mixed, mixed_tokens = self._mix(x, tokens)
        keep = self._draw(x)
        x = _residual(x, mixed, self.res_scale1, self.layer_scale1, keep)
        if tokens is not None and mixed_tokens is not None:
            tokens = _residual(tokens, mixed_tokens, self.res_scale1, self.layer_scale1, keep, axis=2)
        keep = self._draw(x)
        if tokens is not None:
            y = self.channel_mixer.forward_tokens(_norm_tokens(self.norm2, tokens, self.spatial_dims))
            tokens = _residual(tokens, y, self.res_scale2, self.layer_scale2, keep, axis=2)
        return _residual(x, self.channel_mixer(self.norm2(x)), self.res_scale2, self.layer_scale2, keep), tokens

    def _mix(self, x: Tensor, tokens: Tensor | None) -> tuple[Tensor, Tensor | None]:
        x = self.norm1(x)
        if not self.takes_tokens:
            return self.token_mixer(x), None
        if tokens is not None:
            tokens = _norm_tokens(self.norm1, tokens, self.spatial_dims)
        return self.token_mixer(x, tokens)

    def _draw(self, x: Tensor) -> Tensor | None:
        """DropPath: one factor a sample, 0 with probability ``drop_path``, else ``1 / (1 - drop_path)``."""
        if self.drop_path == 0.0 or not self.training:
            return None
        return F.dropout(x.new_ones(x.shape[0]), self.drop_path)

    def cost(self, size: Size, tokens: int = 0) -> Cost:
        """Cost for one map of ``size`` and that many global tokens."""
        position = Cost() if self.position is None else self.position.cost(size)
        scales = sum(p.numel() for p in self.parameters(recurse=False))
        norms = norm_cost(self.norm1, size) + norm_cost(self.norm2, size)
        takes = tokens > 0 and self.takes_tokens
        mixer = self.token_mixer.cost(size, tokens) if takes else self.token_mixer.cost(size)
        total = position + norms + mixer + self.channel_mixer.cost(size) + Cost(parameters=scales)
        if tokens:
            total += norm_cost(self.norm2, (tokens,)).again() + self.channel_mixer.cost_tokens(tokens)
        return total + norm_cost(self.norm1, (tokens,)).again() if takes else total


def _norm_tokens(norm: nn.Module, tokens: Tensor, spatial_dims: int) -> Tensor:
    """Each token as a map of one position, so that any norm of maps takes it."""
    return norm(tokens.reshape(-1, tokens.shape[2], *(1,) * spatial_dims)).reshape(tokens.shape)


def _residual(
    x: Tensor, y: Tensor, res_scale: Tensor | None, layer_scale: Tensor | None, keep: Tensor | None, axis: int = 1
) -> Tensor:
    """``res_scale · x + keep · layer_scale · y``; the scales belong to the channels on ``axis``."""
    if axis == 1 and res_scale is None and layer_scale is not None:
        return add_scaled(x, y, layer_scale, keep)
    channels = [1] * x.ndim
    channels[axis] = -1
    if keep is not None:
        y = y * keep.view(-1, *(1,) * (y.ndim - 1))
    if res_scale is None:
        return y + x if layer_scale is None else torch.addcmul(x, y, layer_scale.view(channels))
    if layer_scale is not None:
        y = y * layer_scale.view(channels)
    return torch.addcmul(y, x, res_scale.view(channels))
