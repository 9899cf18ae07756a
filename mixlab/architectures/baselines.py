"""MetaFormer baselines: IdentityFormer, RandFormer, PoolFormerV2, ConvFormer, CAFormer (Yu et al., arXiv:2210.13452;
sail-sg/metaformer).

The stem is a 7x7 convolution of stride 4 followed by a norm, later patches are a norm and a 3x3 convolution of stride
2; norms have no bias, the MLP neither, and its activation is StarReLU. The last two stages have a learned factor on
each shortcut. The first three families normalise over channels and positions and classify linearly; ConvFormer and
CAFormer normalise channels and classify through a hidden layer. RandFormer's matrices belong to the grid of 224 x 224
images unless built with another ``image_size``.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from mixlab.architectures.base import OfficialNames, Published, publish
from mixlab.metaformer import MetaFormerConfig, StageConfig
from mixlab.registry import Part

Ints = tuple[int, ...]

PLAIN_NORM = Part("group_norm", {"eps": 1e-6, "bias": False})
CHANNEL_NORM = Part("layer_norm", {"eps": 1e-6, "bias": False})
MIXERS_OF_LETTERS = {
    "I": Part("identity"),
    "R": Part("random_mixing"),
    "P": Part("pooling", {"kernel_size": 3}),
    "C": Part("inverted_sep_conv"),
    "A": Part("attention", {"proj_bias": False}),
}
LINEAR_HEAD = Part("linear", {"norm": {"name": "layer_norm", "eps": 1e-6}, "order": "pool_norm"})
MLP_HEAD = Part("mlp", {"norm": {"name": "layer_norm", "eps": 1e-6}})


def baseline(letters: str, depths: Ints, widths: Ints, drop_path: float) -> MetaFormerConfig:
    """One letter a stage: I identity, R random, P pooling, C inverted separable convolution, A attention."""
    strong = letters[0] == "C"
    norm = CHANNEL_NORM if strong else PLAIN_NORM
    stem = Part("conv", {"kernel_size": 7, "stride": 4, "padding": 2, "norm": CHANNEL_NORM.to_plain()})
    down = Part("conv", {"kernel_size": 3, "stride": 2, "padding": 1, "pre_norm": CHANNEL_NORM.to_plain()})
    stages = tuple(
        StageConfig(
            depth=depth,
            width=width,
            embedding=down if index else stem,
            mixers=(MIXERS_OF_LETTERS[letter],),
            channel_mixers=(Part("mlp", {"ratio": 4.0, "act": "star_relu", "bias": False}),),
            norm=norm,
            res_scale=index >= 2,
        )
        for index, (letter, depth, width) in enumerate(zip(letters, depths, widths, strict=True))
    )
    return MetaFormerConfig(
        stages=stages,
        head=MLP_HEAD if strong else LINEAR_HEAD,
        drop_path_rate=drop_path,
        conv_init="trunc_normal",
        image_size=224 if "R" in letters else None,
    )


def _table(config: MetaFormerConfig) -> dict[str, str]:
    table = {
        "head.norm": "norm",
        "head.fc": "head",
        "head.fc1": "head.fc1",
        "head.hidden_norm": "head.norm",
        "head.fc2": "head.fc2",
    }
    for s, stage in enumerate(config.stages):
        table[f"stages.{s}.embed.proj"] = f"downsample_layers.{s}.conv"
        table[f"stages.{s}.embed.norm"] = f"downsample_layers.{s}.post_norm"
        table[f"stages.{s}.embed.pre_norm"] = f"downsample_layers.{s}.pre_norm"
        for b in range(stage.depth):
            ours, theirs = f"stages.{s}.blocks.{b}", f"stages.{s}.{b}"
            table |= {
                f"{ours}.norm1": f"{theirs}.norm1",
                f"{ours}.norm2": f"{theirs}.norm2",
                f"{ours}.res_scale1": f"{theirs}.res_scale1.scale",
                f"{ours}.res_scale2": f"{theirs}.res_scale2.scale",
                f"{ours}.channel_mixer": f"{theirs}.mlp",
                f"{ours}.token_mixer": f"{theirs}.token_mixer",
                f"{ours}.token_mixer.expand": f"{theirs}.token_mixer.pwconv1",
                f"{ours}.token_mixer.act": f"{theirs}.token_mixer.act1",
                f"{ours}.token_mixer.conv": f"{theirs}.token_mixer.dwconv",
                f"{ours}.token_mixer.reduce": f"{theirs}.token_mixer.pwconv2",
            }
    return table


NAMES = OfficialNames(table=_table)
_said = partial(Published, paper="arXiv:2210.13452", repository="sail-sg/metaformer", crop=1.0)

SMALL, MEDIUM = (64, 128, 320, 512), (96, 192, 384, 768)
PLAIN_SIZES: dict[str, tuple[Ints, Ints, float]] = {
    "s12": ((2, 2, 6, 2), SMALL, 0.1),
    "s24": ((4, 4, 12, 4), SMALL, 0.1),
    "s36": ((6, 6, 18, 6), SMALL, 0.2),
    "m36": ((6, 6, 18, 6), MEDIUM, 0.3),
    "m48": ((8, 8, 24, 8), MEDIUM, 0.4),
}
STRONG_SIZES: dict[str, tuple[Ints, Ints, float]] = {
    "s18": ((3, 3, 9, 3), SMALL, 0.2),
    "s36": ((3, 12, 18, 3), SMALL, 0.3),
    "m36": ((3, 12, 18, 3), (96, 192, 384, 576), 0.4),
    "b36": ((3, 12, 18, 3), (128, 256, 512, 768), 0.6),
}
DROP_PATH = {"randformer_m48": 0.3, "caformer_s18": 0.15}
"""Rates of the training scripts where a family departs from its sizes' rate above."""
# Family, letters: size to (parameters in millions, MACs in G, top-1).
PLAIN: dict[tuple[str, str], dict[str, tuple[float, float, float]]] = {
    ("identityformer", "IIII"): {
        "s12": (11.9, 1.8, 74.6), "s24": (21.3, 3.4, 78.2), "s36": (30.8, 5.0, 79.3),
        "m36": (56.1, 8.8, 80.0), "m48": (73.3, 11.5, 80.4),
    },
    ("randformer", "IIRR"): {
        "s12": (12.1, 1.9, 76.6), "s24": (21.8, 3.5, 78.2), "s36": (31.5, 5.2, 79.5),
        "m36": (56.8, 9.0, 81.2), "m48": (74.3, 11.9, 81.4),
    },
    ("poolformerv2", "PPPP"): {
        "s12": (11.9, 1.8, 78.0), "s24": (21.3, 3.4, 80.7), "s36": (30.8, 5.0, 81.6),
        "m36": (56.1, 8.8, 82.2), "m48": (73.3, 11.5, 82.6),
    },
}  # fmt: skip
# Family, letters: size to (parameters; MACs and top-1 at 224; at 384; top-1 after ImageNet-21K at 224, at 384).
STRONG: dict[tuple[str, str], dict[str, tuple[float, float, float, float, float, float, float]]] = {
    ("convformer", "CCCC"): {
        "s18": (27, 3.9, 83.0, 11.6, 84.4, 83.7, 85.0), "s36": (40, 7.6, 84.1, 22.4, 85.4, 85.4, 86.4),
        "m36": (57, 12.8, 84.5, 37.7, 85.6, 86.1, 86.9), "b36": (100, 22.6, 84.8, 66.5, 85.7, 87.0, 87.6),
    },
    ("caformer", "CCAA"): {
        "s18": (26, 4.1, 83.6, 13.4, 85.0, 84.1, 85.4), "s36": (39, 8.0, 84.5, 26.0, 85.7, 85.8, 86.9),
        "m36": (56, 13.2, 85.2, 42.0, 86.2, 86.6, 87.5), "b36": (99, 23.2, 85.5, 72.2, 86.4, 87.4, 88.1),
    },
}  # fmt: skip


def _publish(family: str, letters: str, size: str, sizes: dict[str, tuple[Ints, Ints, float]], **said: Any) -> None:
    depths, widths, drop_path = sizes[size]
    name = f"{family}_{size}"
    make = partial(baseline, letters, depths, widths, DROP_PATH.get(name, drop_path))
    suffix = "_384" if said.get("image_size") == 384 else ""
    publish(name + suffix, make, published=_said(**said), names=NAMES)


for (_family, _letters), _plain in PLAIN.items():
    for _size, (_parameters, _macs, _top1) in _plain.items():
        _publish(_family, _letters, _size, PLAIN_SIZES, parameters=_parameters, macs=_macs, top1=_top1)
for (_family, _letters), _strong in STRONG.items():
    for _size, (_parameters, *_figures) in _strong.items():
        for _pixels, _macs, _top1, _after in (
            (224, *_figures[:2], _figures[4]),
            (384, *_figures[2:4], _figures[5]),
        ):
            _publish(
                _family, _letters, _size, STRONG_SIZES, parameters=_parameters, macs=_macs, top1=_top1,
                image_size=_pixels, note=f"{_after} after ImageNet-21K",
            )  # fmt: skip
