"""One model a family, compiled, exported with dynamic height and width, and in onnxruntime.

With few stages of one block: the time of these tests goes with the number of layers, what they find does not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from mixlab import create_model
from mixlab.analysis import export_onnx, export_program
from mixlab.architectures import ARCHITECTURES
from mixlab.errors import UserError
from mixlab.metaformer import MetaFormer, MetaFormerConfig, StageConfig

FAMILIES = (
    "poolformer_s12",
    "metaformer_ppaa_s12_224",
    "metaformer_ppff_s12_224",
    "identityformer_s12",
    "randformer_s12",
    "poolformerv2_s12",
    "convformer_s18",
    "caformer_s18",
    "ffnet_1",
    "transnext_micro",
    "rmt_t",
)
FIXED = tuple(n for n in FAMILIES if ARCHITECTURES[n]().image_size is not None)


# Together they have every mixer, channel mixer, embedding and head of the families; the others are traced without the
# generated code, which takes most of the time.
WITH_CODE = (
    "metaformer_ppaa_s12_224",
    "metaformer_ppff_s12_224",
    "randformer_s12",
    "caformer_s18",
    "ffnet_1",
    "transnext_micro",
    "rmt_t",
)


@pytest.fixture(autouse=True)
def forget_compiled_models() -> None:
    """torch counts compilations a function, and all models are functions of the same files."""
    torch.compiler.reset()


def two_stages(config: MetaFormerConfig) -> tuple[StageConfig, ...]:
    """The first stage, and the first later one with the mixers of the last."""
    first, *later = config.stages
    return first, next(s for s in later if s.mixers == later[-1].mixers)


def shallow(name: str, *, every_stage: bool = False) -> MetaFormer:
    """The model in float64 with two stages, or all, of one block and random, not initial, parameters."""
    torch.manual_seed(0)
    config = ARCHITECTURES[name]()
    kept = config.stages if every_stage else two_stages(config)
    stages = tuple(dataclasses.replace(s, depth=1) for s in kept)
    size = (64, 96) if name in FIXED else None
    model = MetaFormer(
        dataclasses.replace(config, stages=stages, num_classes=10, image_size=size, drop_path_rate=0.0)
    ).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.double()


def parts(stages: Iterable[StageConfig]) -> set[str]:
    """What stages are made of."""
    found: set[str] = set()
    for stage in stages:
        optional = (stage.norm, stage.position, stage.block_position, stage.stage_norm)
        found |= {p.name for p in (*stage.mixers, *stage.channel_mixers, stage.embedding, *optional) if p is not None}
    return found


def test_what_is_left_out_is_there_elsewhere() -> None:
    """Two stages have every part of their model, and the models with code every part of all families."""
    for name in FAMILIES:
        assert parts(two_stages(ARCHITECTURES[name]())) == parts(ARCHITECTURES[name]().stages)
    every, coded = (parts(s for n in names for s in ARCHITECTURES[n]().stages) for names in (FAMILIES, WITH_CODE))
    assert coded == every
    assert {ARCHITECTURES[n]().head.name for n in WITH_CODE} == {ARCHITECTURES[n]().head.name for n in FAMILIES}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_compiles_as_one_graph(name: str) -> None:
    backend = "inductor" if name in WITH_CODE else "aot_eager"
    model, x = shallow(name), torch.randn(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, backend=backend, fullgraph=True)(x), model(x))


@pytest.mark.parametrize("name", FAMILIES)
def test_trains_compiled(name: str) -> None:
    model, x = shallow(name).train(), torch.randn(2, 3, 64, 96, dtype=torch.float64)
    want = torch.autograd.grad(model(x).square().mean(), [p for p in model.parameters() if p.requires_grad])
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    got = torch.autograd.grad(compiled(x).square().mean(), [p for p in model.parameters() if p.requires_grad])
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", [n for n in FAMILIES if n not in FIXED])
def test_exports_with_dynamic_height_and_width(name: str) -> None:
    model = shallow(name, every_stage=True)
    program = export_program(model, (64, 96), dynamic_size=(64, 512)).module()
    for size in ((64, 96), (73, 111), (160, 64)):
        x = torch.randn(3, 3, *size, dtype=torch.float64)
        torch.testing.assert_close(program(x), model(x))


@pytest.mark.parametrize("name", FAMILIES)
def test_onnxruntime_computes_the_same(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    model = shallow(name).float()
    file = export_onnx(model.fuse(), tmp_path / "model.onnx", (64, 96))  # compares by itself
    assert file.stat().st_size > 0


def test_export_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    model = create_model("metaformer_nano")
    with pytest.raises(UserError, match="evaluation mode"):
        export_onnx(model, tmp_path / "model.onnx", 64)
    with pytest.raises(UserError, match="returns logits"):
        export_onnx(create_model("metaformer_nano", features_only=True).eval(), tmp_path / "model.onnx", 64)
    with pytest.raises(UserError, match="at least"):
        export_onnx(create_model("poolformer_s12").eval(), tmp_path / "model.onnx", 2)
