"""Weights: state dicts under the names of the official implementations, checkpoint files, swaps, inflation.

Everything that loads or converts returns a :class:`LoadReport` that accounts for every entry; what was not announced
raises.
"""

from mixlab.weights.checkpoint import Checkpoint, open_checkpoint
from mixlab.weights.conversions import Made, Target, register_pooling_start, register_warm_start
from mixlab.weights.loading import load_pretrained, own_names
from mixlab.weights.official import load_official, to_official, to_own
from mixlab.weights.report import LoadReport
from mixlab.weights.swap import swap_mixers

__all__ = [
    "Checkpoint",
    "LoadReport",
    "Made",
    "Target",
    "load_official",
    "load_pretrained",
    "open_checkpoint",
    "own_names",
    "register_pooling_start",
    "register_warm_start",
    "swap_mixers",
    "to_official",
    "to_own",
]
