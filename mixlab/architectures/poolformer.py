"""Names of PoolFormer's official state dict (sail-sg/poolformer), for the 2D models ``metaformer_s12`` to ``m48`` with
pooling."""

from __future__ import annotations

import re
from collections.abc import Sequence

_RULES = (
    (r"^stages\.0\.embed\.proj\.(.*)$", r"patch_embed.proj.\1"),
    (r"^stages\.(\d+)\.embed\.proj\.(.*)$", lambda m: f"network.{2 * int(m[1]) - 1}.proj.{m[2]}"),
    (
        r"^stages\.(\d+)\.blocks\.(\d+)\.layer_scale(\d)$",
        lambda m: f"network.{2 * int(m[1])}.{m[2]}.layer_scale_{m[3]}",
    ),
    (r"^stages\.(\d+)\.blocks\.(\d+)\.channel_mixer\.(.*)$", lambda m: f"network.{2 * int(m[1])}.{m[2]}.mlp.{m[3]}"),
    (r"^stages\.(\d+)\.blocks\.(\d+)\.(norm\d)\.(.*)$", lambda m: f"network.{2 * int(m[1])}.{m[2]}.{m[3]}.{m[4]}"),
    (r"^head\.norm\.(.*)$", r"norm.\1"),
    (r"^head\.fc\.(.*)$", r"head.\1"),
)


def official_key(key: str) -> str:
    """The official name of one of our keys; KeyError when PoolFormer has no such parameter."""
    for pattern, replacement in _RULES:
        if re.match(pattern, key):
            return re.sub(pattern, replacement, key)
    raise KeyError(f"PoolFormer has no parameter like {key!r}")


def official_shape(key: str, shape: Sequence[int]) -> tuple[int, ...]:
    """The official shape: the MLP's matrices are 1x1 convolutions there."""
    return (*shape, 1, 1) if ".channel_mixer." in key and key.endswith("weight") else tuple(shape)
