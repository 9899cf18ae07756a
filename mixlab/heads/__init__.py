"""Heads: classification heads and dense decoders. They import no backbone."""

from mixlab.heads import fcn, linear, mlp, projected, segformer, unet
from mixlab.heads.base import HEADS, Head
from mixlab.heads.decoder import DECODERS, Decoder, register_decoder

__all__ = [
    "DECODERS", "HEADS", "Decoder", "Head", "fcn", "linear", "mlp", "projected", "register_decoder", "segformer",
    "unet",
]  # fmt: skip
