"""Official names, in both directions."""

from __future__ import annotations

import dataclasses

import pytest

from mixlab import create_model
from mixlab.architectures import ARCHITECTURES, official_names
from mixlab.errors import UserError
from mixlab.metaformer import MetaFormer
from mixlab.weights import load_official, to_official, to_own

PUBLISHED = [name for name in ARCHITECTURES if official_names(name) is not None]


def numbered(name: str) -> MetaFormer:
    """The model with two blocks a stage, every entry filled with a number of its own."""
    config = ARCHITECTURES[name]()
    stages = tuple(dataclasses.replace(s, depth=2) for s in config.stages)
    model = MetaFormer(dataclasses.replace(config, stages=stages, num_classes=7, architecture=name))
    for index, value in enumerate(model.state_dict().values()):
        value.fill_(index)
    return model


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_are_a_bijection(name: str) -> None:
    """Every entry has a name of its own, and what was given out comes back to its place."""
    model = numbered(name)
    official = to_official(model)
    names = official_names(name)
    assert names is not None
    assert len(official) == len(model.state_dict()) + len(names.constants(model.config))
    back = to_own(model, official)
    assert {k: v.flatten()[0].item() for k, v in back.items()} == {
        k: v.flatten()[0].item() for k, v in model.state_dict().items()
    }
    assert load_official(model, official).complete


SPECIFIED: dict[str, dict[str, tuple[int, ...]]] = {  # literal names and shapes of the repositories
    "metaformer_pppa_s12_224": {
        "network.6.pos_embed": (1, 512, 7, 7),
        "network.7.1.token_mixer.qkv.weight": (1536, 512),
    },
    "metaformer_pppf_s12_224": {"network.6.0.token_mixer.fc.weight": (49, 49)},
    "randformer_s24": {"stages.2.1.token_mixer.random_matrix": (196, 196), "stages.3.0.res_scale1.scale": (512,)},
    "convformer_b36": {"stages.0.0.token_mixer.dwconv.weight": (256, 1, 7, 7), "head.fc1.weight": (3072, 768)},
    "ffnet_3": {
        "stages.2.1.token_mixer.0.layer_scale": (384, 1, 1),
        "stages.1.2.channel_mixer.main.conv.conv1.c.weight": (192, 1, 3, 3),
        "stages.1.0.proj.1.conv.c.weight": (192, 192, 1, 1),
    },
    "transnext_micro_AAAA": {
        "block4.1.attn.learnable_tokens": (16, 24, 9),
        "block4.0.attn.sr.weight": (384, 384, 1, 1),
    },
    "transnext_base": {"block4.1.attn.qkv.weight": (2304, 768), "block1.0.mlp.dwconv.dwconv.weight": (512, 1, 3, 3)},
    "rmt_b": {
        "layers.2.blocks.0.gamma_1": (1, 1, 1, 320),
        "layers.3.Relpos.angle": (32,),
        "layers.0.Relpos.decay": (5,),
    },
    "rmt_l_tl": {"aux_head.weight": (7, 640), "layers.0.blocks.1.ffn.dwconv.conv.weight": (448, 1, 3, 3)},
}


@pytest.mark.parametrize("name", SPECIFIED)
def test_names_and_shapes_of_the_repositories(name: str) -> None:
    official = to_official(numbered(name))
    assert {key: tuple(official[key].shape) for key in SPECIFIED[name]} == SPECIFIED[name]


def test_every_official_key_must_be_accounted_for() -> None:
    model = create_model("metaformer_s12")
    state = to_official(model)
    state["head.scale"] = state.pop("head.bias")
    with pytest.raises(UserError, match=r"missing \['head.bias'\], left over \['head.scale'\]"):
        load_official(model, state)
    state = to_official(model)
    state["network.0.0.mlp.fc1.weight"] = state["network.0.0.mlp.fc1.weight"].transpose(0, 1)
    with pytest.raises(UserError, match=r"fc1.weight: expected shape \(256, 64, 1, 1\), got \(64, 256, 1, 1\)"):
        load_official(model, state)
    state = to_official(model)
    state["head.bias"] = state["head.bias"][:10]
    with pytest.raises(UserError, match=r"head.bias: expected shape \(1000,\), got \(10,\)"):
        load_official(model, state)
