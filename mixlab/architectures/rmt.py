"""RMT (Fan et al., RMT: Retentive Networks Meet Vision Transformers, arXiv:2309.11523; qhfan/RMT).

The stem is four 3x3 convolutions with BatchNorm, patches between stages 3x3 of stride 2 with BatchNorm; features have
strides 4, 8, 16, 32. Each block adds a depthwise convolution of its input (conditional position encoding), then
Manhattan attention and an MLP with a depthwise convolution; attention is decomposed along rows and columns in the
early stages. The head widens to 1024 channels before the mean.

``rmt_s_tl`` to ``rmt_l_tl`` are the models trained with token labels: they have a second classifier on every position.

The repository has no licence; this file follows the paper and a description in formulas.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from mixlab.architectures.base import OfficialNames, Published, Shape, publish
from mixlab.metaformer import MetaFormerConfig, StageConfig
from mixlab.mixers.manhattan_attention import decay_rates, rotary_angles
from mixlab.registry import Part

Ints = tuple[int, ...]
DOWN = Part("conv", {"kernel_size": 3, "stride": 2, "padding": 1, "norm": "batch_norm"})


@dataclass(frozen=True, kw_only=True)
class Size:
    """What distinguishes one RMT from another, stage by stage."""

    depths: Ints
    widths: Ints
    heads: Ints
    decay_ranges: Ints
    ratios: Ints
    decomposed: tuple[bool, ...]
    layer_scale: tuple[float | None, ...] = (None, None, None, None)
    drop_path: float


def rmt(size: Size, *, token_labels: bool = False) -> MetaFormerConfig:
    """Manhattan attention and depthwise MLPs with LayerNorm."""
    half = size.widths[0] // 2
    stem = Part("conv_stack", {"hidden": (half, half, size.widths[0]), "strides": (2, 1, 2, 1)})
    stages = []
    for index, (depth, width) in enumerate(zip(size.depths, size.widths, strict=True)):
        attention = {
            "head_dim": width // size.heads[index],
            "decomposed": size.decomposed[index],
            "decay_start": 2.0,
            "decay_range": float(size.decay_ranges[index]),
        }
        stages.append(
            StageConfig(
                depth=depth,
                width=width,
                embedding=DOWN if index else stem,
                mixers=(Part("manhattan_attention", attention),),
                channel_mixers=(Part("depthwise_mlp", {"ratio": float(size.ratios[index])}),),
                norm=Part("layer_norm", {"eps": 1e-6}),
                block_position=Part("conv"),
                layer_scale=size.layer_scale[index],
                out_norm=Part("layer_norm"),
            )
        )
    head = Part("projected", {"features": 1024, "token_labels": token_labels})
    return MetaFormerConfig(stages=tuple(stages), head=head, drop_path_rate=size.drop_path)


_THREE = (True, True, True, False)
_LATE = (None, None, 1e-6, 1e-6)
SIZES = {
    "t": Size(
        depths=(2, 2, 8, 2), widths=(64, 128, 256, 512), heads=(4, 4, 8, 16), decay_ranges=(4, 4, 6, 6),
        ratios=(3, 3, 3, 3), decomposed=(True, True, False, False), drop_path=0.1,
    ),
    "s": Size(
        depths=(3, 4, 18, 4), widths=(64, 128, 256, 512), heads=(4, 4, 8, 16), decay_ranges=(4, 4, 6, 6),
        ratios=(4, 4, 3, 3), decomposed=_THREE, drop_path=0.15,
    ),
    "b": Size(
        depths=(4, 8, 25, 8), widths=(80, 160, 320, 512), heads=(5, 5, 10, 16), decay_ranges=(5, 5, 6, 6),
        ratios=(4, 4, 3, 3), decomposed=_THREE, layer_scale=_LATE, drop_path=0.4,
    ),
    "l": Size(
        depths=(4, 8, 25, 8), widths=(112, 224, 448, 640), heads=(7, 7, 14, 20), decay_ranges=(6, 6, 6, 6),
        ratios=(4, 4, 3, 3), decomposed=_THREE, layer_scale=_LATE, drop_path=0.5,
    ),
}  # fmt: skip


def _table(config: MetaFormerConfig) -> dict[str, str]:
    table = {"head.proj": "proj", "head.norm": "norm", "head.fc": "head", "head.aux": "aux_head"}
    for i in range(4):  # an activation follows each convolution and its norm
        table[f"stages.0.embed.layers.{i}.conv"] = f"patch_embed.proj.{3 * i}"
        table[f"stages.0.embed.layers.{i}.norm"] = f"patch_embed.proj.{3 * i + 1}"
        table[f"stages.0.embed.layers.{i}"] = f"patch_embed.proj.{3 * i}"  # fused
    for s, stage in enumerate(config.stages):
        table[f"out_norms.{s}"] = f"extra_norms.{s}"
        if s:
            table[f"stages.{s}.embed.proj"] = f"layers.{s - 1}.downsample.reduction"
            table[f"stages.{s}.embed.norm"] = f"layers.{s - 1}.downsample.norm"
        for b in range(stage.depth):
            ours, theirs = f"stages.{s}.blocks.{b}", f"layers.{s}.blocks.{b}"
            table |= {
                f"{ours}.position.conv": f"{theirs}.pos.conv",
                f"{ours}.norm1": f"{theirs}.retention_layer_norm",
                f"{ours}.norm2": f"{theirs}.final_layer_norm",
                f"{ours}.token_mixer": f"{theirs}.retention",
                f"{ours}.token_mixer.lepe": f"{theirs}.retention.lepe.conv",
                f"{ours}.channel_mixer": f"{theirs}.ffn",
                f"{ours}.channel_mixer.conv": f"{theirs}.ffn.dwconv.conv",
                f"{ours}.layer_scale1": f"{theirs}.gamma_1",
                f"{ours}.layer_scale2": f"{theirs}.gamma_2",
            }
    return table


def _shape(key: str, shape: Shape) -> Shape:
    """LayerScale multiplies maps with channels last there."""
    return (1, 1, 1, *shape) if key.endswith(("gamma_1", "gamma_2")) else shape


def _constants(config: MetaFormerConfig) -> dict[str, Tensor]:
    """Angles and decays, which the official code stores with the weights."""
    constants = {}
    for s, stage in enumerate(config.stages):
        options = stage.mixers[0].options
        if {"head_dim", "decay_start", "decay_range"} <= set(options):  # not a mixer put in by the user
            heads = stage.width // options["head_dim"]
            constants[f"layers.{s}.Relpos.angle"] = rotary_angles(options["head_dim"])
            constants[f"layers.{s}.Relpos.decay"] = decay_rates(heads, options["decay_start"], options["decay_range"])
    return constants


NAMES = OfficialNames(table=_table, shape=_shape, constants=_constants)
_said = partial(Published, paper="arXiv:2309.11523", repository="qhfan/RMT")

for _size, _published in {
    "t": _said(parameters=14, macs=2.5, top1=82.4),
    "s": _said(parameters=27, macs=4.5, top1=84.1),
    "b": _said(parameters=54, macs=9.7, top1=85.0),
    "l": _said(parameters=95, macs=18.2, top1=85.5),
}.items():
    publish(f"rmt_{_size}", partial(rmt, SIZES[_size]), published=_published, names=NAMES)

for _size, _top1 in {"s": 84.8, "b": 85.6, "l": 86.1}.items():
    publish(
        f"rmt_{_size}_tl",
        partial(rmt, SIZES[_size], token_labels=True),
        published=_said(note=f"top-1 {_top1} when trained with token labels, which another model makes"),
        names=NAMES,
    )
