"""MetaFormers of PoolFormer's sizes (arXiv:2111.11418), and a small one for small images.

Depths, widths, LayerScale and drop path of ``metaformer_s12`` to ``m48`` are those of ``poolformer_s12`` to ``m48``;
with pooling, the default mixer, they are numerically PoolFormers. The stem is a 7x7 convolution of stride 4, padding 2;
features have strides 4, 8, 16, 32.

``metaformer_nano`` is ours, for images of 28 to 64 pixels on a laptop. Its patches do not overlap, so that tokens meet
in the mixers and nowhere else before the head; features have strides 2, 4, 8, 16. ``docs/architecture.md`` says why.
"""

from __future__ import annotations

from mixlab.architectures.base import register_sizes
from mixlab.metaformer.config import MetaFormerConfig, StageConfig
from mixlab.registry import Part

DOWN = Part("conv", {"kernel_size": 3, "stride": 2, "padding": 1})
STEM = Part("conv", {"kernel_size": 7, "stride": 4, "padding": 2})
PATCH = Part("conv", {"kernel_size": 2, "stride": 2, "padding": "end"})

Ints = tuple[int, ...]


def metaformer(
    depths: Ints,
    widths: Ints,
    layer_scale: float | None,
    drop_path: float,
    stem: Part = STEM,
    down: Part = DOWN,
    ratio: float = 4.0,
) -> MetaFormerConfig:
    """GroupNorm blocks with LayerScale and an MLP; pooling in every stage."""
    stages = tuple(
        StageConfig(
            depth=depth,
            width=width,
            embedding=down if index else stem,
            mixers=(Part("pooling", {"kernel_size": 3}),),
            channel_mixers=(Part("mlp", {"ratio": ratio}),),
            layer_scale=layer_scale,
        )
        for index, (depth, width) in enumerate(zip(depths, widths, strict=True))
    )
    return MetaFormerConfig(stages=stages, drop_path_rate=drop_path)


SMALL, MEDIUM = (64, 128, 320, 512), (96, 192, 384, 768)

register_sizes(
    {
        "metaformer_s12": ((2, 2, 6, 2), SMALL, 1e-5, 0.1),
        "metaformer_s24": ((4, 4, 12, 4), SMALL, 1e-5, 0.1),
        "metaformer_s36": ((6, 6, 18, 6), SMALL, 1e-6, 0.2),
        "metaformer_m36": ((6, 6, 18, 6), MEDIUM, 1e-6, 0.3),
        "metaformer_m48": ((8, 8, 24, 8), MEDIUM, 1e-6, 0.4),
        "metaformer_nano": ((1, 1, 2, 1), (32, 64, 96, 128), None, 0.0, PATCH, PATCH, 3.0),
    },
    metaformer,
)
