"""Weights: state dicts under the names of the official implementations, and checkpoint files.

Everything that loads returns a :class:`LoadReport` that accounts for every entry; what was not announced raises.
"""

from mixlab.weights.checkpoint import Checkpoint, open_checkpoint
from mixlab.weights.loading import load_pretrained, own_names
from mixlab.weights.official import load_official, to_official, to_own
from mixlab.weights.report import LoadReport

__all__ = [
    "Checkpoint",
    "LoadReport",
    "load_official",
    "load_pretrained",
    "open_checkpoint",
    "own_names",
    "to_official",
    "to_own",
]
