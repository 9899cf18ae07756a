"""TransNeXt (Shi, TransNeXt: Robust Foveal Visual Perception for Vision Transformers, arXiv:2311.17132;
DaiShiResearch/TransNeXt).

Aggregated attention in the first three stages, full cosine attention in the last (``AAAA``: aggregated everywhere), and
a gated channel mixer with a depthwise convolution. Every stage ends in a norm, in the path. Sizes: the window, the
pooled grid, the length scale and the position bias follow the image at hand; only the unit of distance of the bias is
that of pretraining. A model of ``_384`` differs in the images it is meant for, not in its parameters.
"""

from __future__ import annotations

from functools import partial

from mixlab.architectures.base import OfficialNames, Published, Shape, publish
from mixlab.metaformer import MetaFormerConfig, StageConfig
from mixlab.registry import Part

NORM_OF_PATCHES = {"name": "layer_norm", "eps": 1e-5}
STEM = Part("conv", {"kernel_size": 7, "stride": 4, "padding": 3, "norm": NORM_OF_PATCHES})
DOWN = Part("conv", {"kernel_size": 3, "stride": 2, "padding": 1, "norm": NORM_OF_PATCHES})
NORM = Part("layer_norm", {"eps": 1e-6})
HEAD_DIM = 24
RATIOS = (8.0, 8.0, 4.0, 4.0)

Ints = tuple[int, ...]


def _mixer(sr_ratio: int, pretrain_size: int) -> Part:
    """Full attention where nothing is pooled."""
    options = {"head_dim": HEAD_DIM, "pretrain_size": pretrain_size}
    if sr_ratio == 1:
        return Part("cosine_attention", options)
    return Part("aggregated_attention", {"kernel_size": 3, "sr_ratio": sr_ratio, **options})


def transnext(
    depths: Ints, widths: Ints, drop_path: float, *, sr_ratios: Ints = (8, 4, 2, 1), pretrain_size: int = 224
) -> MetaFormerConfig:
    """Four stages at strides 4, 8, 16, 32; ``pretrain_size`` is the image's."""
    stages = tuple(
        StageConfig(
            depth=depth,
            width=width,
            embedding=DOWN if index else STEM,
            mixers=(_mixer(sr_ratio, pretrain_size // 2 ** (index + 2)),),
            channel_mixers=(Part("conv_glu", {"ratio": ratio}),),
            norm=NORM,
            stage_norm=NORM,
        )
        for index, (depth, width, sr_ratio, ratio) in enumerate(zip(depths, widths, sr_ratios, RATIOS, strict=True))
    )
    return MetaFormerConfig(
        stages=stages, head=Part("linear", {"norm": None}), drop_path_rate=drop_path, conv_init="fan_out"
    )


def _table(config: MetaFormerConfig) -> dict[str, str]:
    table = {"head.fc": "head"}
    for s, stage in enumerate(config.stages):
        table |= {f"stages.{s}.embed": f"patch_embed{s + 1}", f"stages.{s}.norm": f"norm{s + 1}"}
        for b in range(stage.depth):
            ours, theirs = f"stages.{s}.blocks.{b}", f"block{s + 1}.{b}"
            table |= {
                ours: theirs,
                f"{ours}.token_mixer": f"{theirs}.attn",
                f"{ours}.token_mixer.cpb.fc1": f"{theirs}.attn.cpb_fc1",
                f"{ours}.token_mixer.cpb.fc2": f"{theirs}.attn.cpb_fc2",
                f"{ours}.channel_mixer": f"{theirs}.mlp",
                f"{ours}.channel_mixer.conv": f"{theirs}.mlp.dwconv.dwconv",
            }
    return table


def _shape(key: str, shape: Shape) -> Shape:
    """The projection before pooling is a 1x1 convolution there."""
    return (*shape, 1, 1) if key.endswith(".attn.sr.weight") else shape


NAMES = OfficialNames(table=_table, shape=_shape)
_said = partial(Published, paper="arXiv:2311.17132", repository="DaiShiResearch/TransNeXt")
_large = partial(_said, image_size=384)

MICRO = partial(transnext, (2, 2, 15, 2), (48, 96, 192, 384), 0.15)
TINY = partial(transnext, (2, 2, 15, 2), (72, 144, 288, 576), 0.25)
SMALL = partial(transnext, (5, 5, 22, 5), (72, 144, 288, 576), 0.45)
BASE = partial(transnext, (5, 5, 23, 5), (96, 192, 384, 768), 0.6)

for _name, _make, _published in (
    ("micro", MICRO, _said(parameters=12.8, macs=2.7, top1=82.5)),
    ("tiny", TINY, _said(parameters=28.2, macs=5.7, top1=84.0)),
    ("small", SMALL, _said(parameters=49.7, macs=10.3, top1=84.7)),
    ("small_384", SMALL, _large(parameters=49.7, macs=32.1, top1=86.0)),
    ("base", BASE, _said(parameters=89.7, macs=18.4, top1=84.8)),
    ("base_384", BASE, _large(parameters=89.7, macs=56.3, top1=86.2)),
    (
        "micro_AAAA",
        partial(MICRO, sr_ratios=(16, 8, 4, 2), pretrain_size=256),
        _said(parameters=13.1, macs=3.3, top1=82.6, image_size=256),
    ),
):
    publish(f"transnext_{_name}", _make, published=_published, names=NAMES)
