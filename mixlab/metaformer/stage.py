"""A stage: tokens at one resolution."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mixlab.cost import Cost, Size
from mixlab.embeddings import EMBEDDINGS, POSITIONS, GlobalTokens
from mixlab.metaformer.block import Block, build_part
from mixlab.metaformer.config import StageConfig
from mixlab.norms import build_norm, norm_cost


class Stage(nn.Module):
    """A patch embedding, an optional position, ``depth`` blocks (applied ``repeat`` times), an optional norm in the
    path."""

    def __init__(
        self,
        config: StageConfig,
        dim_in: int,
        drop_paths: list[float],
        spatial_dims: int,
        grid: Size | None,
        tokens: GlobalTokens | None,
    ) -> None:
        super().__init__()
        self.config = config
        self.embed = EMBEDDINGS.build(config.embedding, dim_in, config.width, spatial_dims=spatial_dims)
        grid = None if grid is None else self.embed.output_size(grid)
        self.position = (
            None
            if config.position is None
            else build_part(POSITIONS, config.position, config.width, spatial_dims, grid)
        )
        self.blocks = nn.ModuleList(
            Block(config, i, rate, spatial_dims, grid, tokens) for i, rate in enumerate(drop_paths)
        )
        self.norm = build_norm(config.stage_norm, config.width, spatial_dims)
        self.grad_checkpointing = False

    def each_block(self) -> Iterator[Block]:
        """The blocks, in order."""
        for block in self.blocks:
            assert isinstance(block, Block)
            yield block

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        x = self.embed(x)
        if self.position is not None:
            x = x + self.position(x)
        for _ in range(self.config.repeat):
            for block in self.each_block():
                if self.grad_checkpointing and self.training:
                    x, tokens = checkpoint(block, x, tokens, use_reentrant=False)
                else:
                    x, tokens = block(x, tokens)
        return self.norm(x), tokens

    def cost(self, size: Size, tokens: int = 0) -> Cost:
        """Cost for one input of ``size`` and that many global tokens."""
        out = self.embed.output_size(size)
        total = self.embed.cost(size) + norm_cost(self.norm, out)
        if self.position is not None:
            total += self.position.cost(out)
        for block in self.each_block():
            total += block.cost(out, tokens).times(self.config.repeat)
        return total
