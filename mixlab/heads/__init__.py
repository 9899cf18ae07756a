"""Heads: classification heads now, dense decoders later. They import no backbone."""

from mixlab.heads import linear, mlp, projected
from mixlab.heads.base import HEADS, Head

__all__ = ["HEADS", "Head", "linear", "mlp", "projected"]
