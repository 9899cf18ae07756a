"""Patch embeddings (stems, downsampling), positions and global tokens."""

from mixlab.embeddings import conv, conv_stack, positions, rep_downsample
from mixlab.embeddings.base import EMBEDDINGS, POSITIONS, Embedding, Position
from mixlab.embeddings.tokens import GlobalTokens

__all__ = [
    "EMBEDDINGS",
    "POSITIONS",
    "Embedding",
    "GlobalTokens",
    "Position",
    "conv",
    "conv_stack",
    "positions",
    "rep_downsample",
]
