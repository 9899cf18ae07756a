"""One model a family, compiled, exported with dynamic height and width, and in onnxruntime."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from mixlab import create_model
from mixlab.analysis import export_onnx, export_program
from mixlab.architectures import ARCHITECTURES
from mixlab.errors import UserError
from mixlab.metaformer import MetaFormer

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


@pytest.fixture(autouse=True)
def forget_compiled_models() -> None:
    """torch counts compilations a function, and all models are functions of the same files."""
    torch.compiler.reset()


def shallow(name: str, image_size: int | tuple[int, int] = (64, 96)) -> MetaFormer:
    """The model in float64 with one block a stage and random, not initial, parameters."""
    torch.manual_seed(0)
    config = ARCHITECTURES[name]()
    stages = tuple(dataclasses.replace(s, depth=1) for s in config.stages)
    size = image_size if name in FIXED else None
    model = MetaFormer(
        dataclasses.replace(config, stages=stages, num_classes=10, image_size=size, drop_path_rate=0.0)
    ).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.double()


@pytest.mark.parametrize("name", FAMILIES)
def test_compiles_as_one_graph(name: str) -> None:
    model, x = shallow(name), torch.randn(2, 3, 64, 96, dtype=torch.float64)
    torch.testing.assert_close(torch.compile(model, backend="aot_eager", fullgraph=True)(x), model(x))


@pytest.mark.parametrize("name", FAMILIES)
def test_trains_compiled(name: str) -> None:
    model, x = shallow(name).train(), torch.randn(2, 3, 64, 96, dtype=torch.float64)
    want = torch.autograd.grad(model(x).square().mean(), [p for p in model.parameters() if p.requires_grad])
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    got = torch.autograd.grad(compiled(x).square().mean(), [p for p in model.parameters() if p.requires_grad])
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_inductor(name: str) -> None:
    model, x = shallow(name), torch.randn(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, fullgraph=True)(x), model(x))


@pytest.mark.parametrize("name", [n for n in FAMILIES if n not in FIXED])
def test_exports_with_dynamic_height_and_width(name: str) -> None:
    model = shallow(name)
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
