"""MetaFormers of PoolFormer's sizes (arXiv:2111.11418), and a small one for small images.

``metaformer_s12`` to ``m48`` are the frames of ``poolformer_s12`` to ``m48``, by the name to use with other mixers;
with pooling, the default, they are PoolFormers.

``metaformer_nano`` is ours, for images of 28 to 64 pixels on a laptop. Its patches do not overlap, so that tokens meet
in the mixers and nowhere else before the head; features have strides 2, 4, 8, 16. ``docs/architecture.md`` says why.
"""

from __future__ import annotations

from functools import partial

from mixlab.architectures.base import publish
from mixlab.architectures.poolformer import NAMES, SIZES, poolformer
from mixlab.registry import Part

PATCH = Part("conv", {"kernel_size": 2, "stride": 2, "padding": "end"})

for _size, _arguments in SIZES.items():
    publish(f"metaformer_{_size}", partial(poolformer, *_arguments), names=NAMES)

publish(
    "metaformer_nano",
    partial(poolformer, (1, 1, 2, 1), (32, 64, 96, 128), None, 0.0, stem=PATCH, down=PATCH, ratio=3.0),
)
