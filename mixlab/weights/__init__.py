"""Weights: state dicts under the names of the official implementations, checkpoint files, swaps, inflation.

Everything that loads or converts returns a :class:`LoadReport` that accounts for every entry; what was not announced
raises.
"""

from mixlab.weights.checkpoint import Checkpoint, open_checkpoint
from mixlab.weights.conversions import Made, Target, check_init, register_pooling_start, register_warm_start
from mixlab.weights.inflate import inflate
from mixlab.weights.loading import load_pretrained, own_names
from mixlab.weights.official import load_official, to_official, to_own
from mixlab.weights.report import LoadReport
from mixlab.weights.sources import check_source, open_source
from mixlab.weights.start import started
from mixlab.weights.swap import resolved, swap_mixers

__all__ = [
    "Checkpoint",
    "LoadReport",
    "Made",
    "Target",
    "check_init",
    "check_source",
    "inflate",
    "load_official",
    "load_pretrained",
    "open_checkpoint",
    "open_source",
    "own_names",
    "register_pooling_start",
    "register_warm_start",
    "resolved",
    "started",
    "swap_mixers",
    "to_official",
    "to_own",
]
