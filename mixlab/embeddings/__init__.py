"""Patch embeddings (stems, downsampling), positions and global tokens."""

from mixlab.embeddings import conv, conv_stack, coord_mlp, none, patches, positions, rep_downsample
from mixlab.embeddings.base import EMBEDDINGS, POSITIONS, Embedding, Position
from mixlab.embeddings.choice import choose_embeddings
from mixlab.embeddings.tokens import GlobalTokens

__all__ = [
    "EMBEDDINGS",
    "POSITIONS",
    "Embedding",
    "GlobalTokens",
    "Position",
    "choose_embeddings",
    "conv",
    "conv_stack",
    "coord_mlp",
    "none",
    "patches",
    "positions",
    "rep_downsample",
]
