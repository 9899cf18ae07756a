"""PoolFormer and the hybrids of its ablation (Yu et al., MetaFormer Is Actually What You Need for Vision,
arXiv:2111.11418; sail-sg/poolformer).

The stem is a 7x7 convolution of stride 4 with padding 2, patches between stages 3x3 of stride 2, both without norm;
features have strides 4, 8, 16, 32. Blocks have GroupNorm with one group, LayerScale and an MLP of ratio 4; the head
normalises the map first and then takes the mean.

The hybrids are the S12 frame with a letter a stage: P pooling, A attention, F a learned linear map over positions
(spatial FC). Those with attention normalise channels and have a position embedding; attention knows no size, but
embedding and spatial FC belong to the grid of 224 x 224 images unless built with another ``image_size``.
"""

from __future__ import annotations

import dataclasses
from functools import partial

from mixlab.architectures.base import OfficialNames, Published, Shape, publish
from mixlab.metaformer import MetaFormerConfig, StageConfig
from mixlab.registry import Part

DOWN = Part("conv", {"kernel_size": 3, "stride": 2, "padding": 1})
STEM = Part("conv", {"kernel_size": 7, "stride": 4, "padding": 2})
POOLING = Part("pooling", {"kernel_size": 3})

Ints = tuple[int, ...]


def poolformer(
    depths: Ints,
    widths: Ints,
    layer_scale: float | None,
    drop_path: float,
    *,
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
            mixers=(POOLING,),
            channel_mixers=(Part("mlp", {"ratio": ratio}),),
            layer_scale=layer_scale,
        )
        for index, (depth, width) in enumerate(zip(depths, widths, strict=True))
    )
    return MetaFormerConfig(stages=stages, drop_path_rate=drop_path)


SMALL, MEDIUM = (64, 128, 320, 512), (96, 192, 384, 768)
SIZES: dict[str, tuple[Ints, Ints, float, float]] = {
    "s12": ((2, 2, 6, 2), SMALL, 1e-5, 0.1),
    "s24": ((4, 4, 12, 4), SMALL, 1e-5, 0.1),
    "s36": ((6, 6, 18, 6), SMALL, 1e-6, 0.2),
    "m36": ((6, 6, 18, 6), MEDIUM, 1e-6, 0.3),
    "m48": ((8, 8, 24, 8), MEDIUM, 1e-6, 0.4),
}
MIXERS_OF_LETTERS = {"I": Part("identity"), "P": POOLING, "A": Part("attention"), "F": Part("spatial_fc")}


def hybrid(letters: str) -> MetaFormerConfig:
    """The S12 frame with one mixer a stage; with attention also channel norms and one position embedding."""
    base = poolformer(*SIZES["s12"])
    norm = Part("layer_norm") if "A" in letters else Part("group_norm")
    first = letters.find("A")
    stages = tuple(
        dataclasses.replace(
            stage,
            mixers=(MIXERS_OF_LETTERS[letter],),
            norm=norm,
            position=Part("learned") if index == first else None,
        )
        for index, (stage, letter) in enumerate(zip(base.stages, letters, strict=True))
    )
    on_a_grid = "A" in letters or "F" in letters
    return dataclasses.replace(
        base, stages=stages, head=Part("linear", {"norm": norm.name}), image_size=224 if on_a_grid else None
    )


def _table(config: MetaFormerConfig) -> dict[str, str]:
    """Slots of ``network`` alternate between stages and downsampling; a position embedding takes one more."""
    table = {"head.norm": "norm", "head.fc": "head"}
    slot = 0
    for s, stage in enumerate(config.stages):
        if s == 0:
            table["stages.0.embed.proj"] = "patch_embed.proj"
        else:
            table[f"stages.{s}.embed.proj"] = f"network.{slot}.proj"
            slot += 1
        if stage.position is not None:
            table[f"stages.{s}.position.embedding"] = f"network.{slot}.pos_embed"
            slot += 1
        for b in range(stage.depth):
            ours, theirs = f"stages.{s}.blocks.{b}", f"network.{slot}.{b}"
            table |= {
                f"{ours}.norm1": f"{theirs}.norm1",
                f"{ours}.norm2": f"{theirs}.norm2",
                f"{ours}.layer_scale1": f"{theirs}.layer_scale_1",
                f"{ours}.layer_scale2": f"{theirs}.layer_scale_2",
                f"{ours}.token_mixer": f"{theirs}.token_mixer",
                f"{ours}.channel_mixer": f"{theirs}.mlp",
            }
        table[f"out_norms.{s}"] = f"norm{slot}"
        slot += 1
    return table


def _shape(key: str, shape: Shape) -> Shape:
    """The MLP's matrices are 1x1 convolutions there."""
    return (*shape, 1, 1) if ".mlp.fc" in key and key.endswith("weight") else shape


NAMES = OfficialNames(table=_table, shape=_shape)
_said = partial(Published, paper="arXiv:2111.11418", repository="sail-sg/poolformer")

for _size, _published in {
    "s12": _said(parameters=12, macs=1.8, top1=77.2),
    "s24": _said(parameters=21, macs=3.4, top1=80.3),
    "s36": _said(parameters=31, macs=5.0, top1=81.4),
    "m36": _said(parameters=56, macs=8.8, top1=82.1, crop=0.95),
    "m48": _said(parameters=73, macs=11.6, top1=82.5, crop=0.95),
}.items():
    publish(f"poolformer_{_size}", partial(poolformer, *SIZES[_size]), published=_published, names=NAMES)

publish("metaformer_id_s12", partial(hybrid, "IIII"), published=_said(), names=NAMES)
for _letters, _published in {
    "pppa": _said(),
    "ppaa": _said(top1=81.0),
    "pppf": _said(),
    "ppff": _said(),
}.items():
    publish(f"metaformer_{_letters}_s12_224", partial(hybrid, _letters.upper()), published=_published, names=NAMES)
