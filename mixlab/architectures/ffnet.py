"""FFNet (Yun et al., MetaMixer Is All You Need, arXiv:2406.02021; ysj9909/FFNet).

Attention becomes two depthwise convolutions with GELU between, and the channel mixer a depthwise convolution with an
MLP. BatchNorm is in the parts, blocks have no norm of their own. Features have strides 4, 8, 16, 32. Models are trained
with parallel branches and can be fused for deployment; the authors count the fused form.
"""

from __future__ import annotations

from functools import partial

from mixlab.architectures.base import OfficialNames, Published, Shape, publish
from mixlab.metaformer import MetaFormerConfig, StageConfig
from mixlab.registry import Part

STEM = Part("conv_stack", {"hidden": (64,), "strides": (2, 2), "bias": False})
DOWN = Part("rep_downsample", {"kernel_size": 7})
NEAR = Part("ffnified_attention", {"kernel_size": 3, "reparameterise": False})
FAR = Part("ffnified_attention", {"kernel_size": 7})
MIXERS = (NEAR, NEAR, FAR, FAR)

Ints = tuple[int, ...]


def ffnet(
    depths: Ints, width: int, kernel_size: int, drop_path: float, layer_scale: float | None = None
) -> MetaFormerConfig:
    """Widths double from stage to stage; ``kernel_size`` is the channel mixer's, 3 without a second branch."""
    channel_mixer = Part("conv_mlp", {"kernel_size": kernel_size, "ratio": 3.0, "reparameterise": kernel_size == 7})
    stages = tuple(
        StageConfig(
            depth=depth,
            width=width * 2**index,
            embedding=DOWN if index else STEM,
            mixers=(mixer,),
            channel_mixers=(channel_mixer,),
            norm=None,
            layer_scale=layer_scale,
        )
        for index, (depth, mixer) in enumerate(zip(depths, MIXERS, strict=True))
    )
    return MetaFormerConfig(
        stages=stages,
        head=Part("linear", {"norm": "batch_norm"}),
        drop_path_rate=drop_path,
        conv_init="trunc_normal",
    )


# Our suffixes to theirs: a convolution with norm, or two such side by side. What is fused, or has no norm, is the part
# itself.
_SUFFIXES = {
    "": "",
    ".conv": ".c",
    ".norm": ".bn",
    ".wide.conv": ".conv.c",
    ".wide.norm": ".conv.bn",
    ".narrow.conv": ".conv1.c",
    ".narrow.norm": ".conv1.bn",
}


def _table(config: MetaFormerConfig) -> dict[str, str]:
    """Both forms in one table. From the second stage on, the downsampling takes the first slot of a stage."""
    layers = {"stages.0.embed.layers.0": "patch_embed.0", "stages.0.embed.layers.1": "patch_embed.2"}
    table = {"head.norm": "norm", "head.fc": "head"}
    for s, stage in enumerate(config.stages):
        if s:
            layers[f"stages.{s}.embed.conv"] = f"stages.{s}.0.proj.0"
            table |= {
                f"stages.{s}.embed.skip": f"stages.{s}.0.proj.1",
                f"stages.{s}.embed.skip.conv": f"stages.{s}.0.proj.1.conv.c",
                f"stages.{s}.embed.skip.norm": f"stages.{s}.0.proj.1.conv.bn",
            }
        for b in range(stage.depth):
            ours, theirs = f"stages.{s}.blocks.{b}", f"stages.{s}.{b + (s > 0)}"
            layers |= {
                f"{ours}.token_mixer.query": f"{theirs}.token_mixer.0.main.fc",
                f"{ours}.token_mixer.key": f"{theirs}.token_mixer.0.main.conv1",
                f"{ours}.token_mixer.value": f"{theirs}.token_mixer.0.main.conv2",
                f"{ours}.channel_mixer.conv": f"{theirs}.channel_mixer.main.conv",
            }
            table |= {
                f"{ours}.token_mixer": f"{theirs}.token_mixer.0.main",
                f"{ours}.channel_mixer.mlp": f"{theirs}.channel_mixer.main",
                f"{ours}.layer_scale1": f"{theirs}.token_mixer.0.layer_scale",
                f"{ours}.layer_scale2": f"{theirs}.channel_mixer.layer_scale",
            }
        table[f"out_norms.{s}"] = f"norm{s}"
    return table | {a + end: b + other for a, b in layers.items() for end, other in _SUFFIXES.items()}


def _shape(key: str, shape: Shape) -> Shape:
    """The MLP's matrices are 1x1 convolutions there, scales have two more axes."""
    is_matrix = ".channel_mixer.main.fc" in key and key.endswith("weight")
    return (*shape, 1, 1) if is_matrix or key.endswith("layer_scale") else shape


NAMES = OfficialNames(table=_table, shape=_shape)
_said = partial(Published, paper="arXiv:2406.02021", repository="ysj9909/FFNet", image_size=256)
_FUSED = "parameters and MACs of the fused form"

for _name, _make, _published in (
    (
        "ffnet_1",
        partial(ffnet, (2, 2, 8, 2), 80, 3, 0.1),
        _said(parameters=13.7, macs=2.9, top1=81.3, note=f"{_FUSED}; 82.1 with distillation"),
    ),
    (
        "ffnet_2",
        partial(ffnet, (3, 3, 15, 3), 88, 7, 0.15),
        _said(parameters=26.9, macs=6.0, top1=82.9, note=f"{_FUSED}; 83.7 with distillation"),
    ),
    (
        "ffnet_3",
        partial(ffnet, (4, 4, 22, 5), 96, 7, 0.35, 1e-6),
        _said(
            parameters=48.3,
            macs=10.1,
            top1=83.9,
            note=f"{_FUSED}; 84.5 with distillation; at 384 22.8 thousand million MACs and 84.5",
        ),
    ),
    (
        "ffnet_4",
        partial(ffnet, (4, 4, 27, 3), 128, 7, 0.4, 1e-6),
        _said(parameters=79.2, macs=43.1, top1=85.3, image_size=384, note=_FUSED),
    ),
):
    publish(_name, _make, published=_published, names=NAMES)
