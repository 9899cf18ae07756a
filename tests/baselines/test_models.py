"""Baselines by name, beside MetaFormers: create_model, lists, study files, a run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mixlab import create_model, list_models, model_info
from mixlab.baselines import BASELINES, Baseline, baseline_info, make_baseline
from mixlab.baselines import loading as baseline_loading
from mixlab.baselines.rad_dino import RadDino
from mixlab.cli import main
from mixlab.data import DataConfig, describe
from mixlab.errors import UserError
from mixlab.models import ModelConfig
from mixlab.studies.evaluation import evaluate_run
from mixlab.studies.grid import StudyConfig
from mixlab.studies.report import build_report
from mixlab.studies.run_config import RunConfig
from mixlab.studies.user_files import import_files
from mixlab.training.checks import check_recipe
from mixlab.training.recipe import Recipe
from tests.data.make import image_folder
from tests.studies.small import runs_by_label, train


def test_by_name() -> None:
    assert {"resnet18", "rad_dino", "metaformer_nano"} <= set(list_models())
    for dims in (2, 3):
        model: Any = create_model("resnet18", kernel_size=5, spatial_dims=dims, num_classes=3, in_channels=1)
        assert model.layer1[0].conv1.kernel_size == (5,) * dims
        assert model.eval()(torch.randn(1, 1, *(32,) * dims)).shape == (1, 3)
        assert isinstance(model, Baseline)
    timms: Any = create_model("timm:resnet10t", num_classes=3)
    assert timms.eval()(torch.randn(1, 3, 32, 32)).shape == (1, 3)


def test_pretrained_by_file(tmp_path: Path) -> None:
    torch.save(create_model("resnet18", num_classes=3).state_dict(), tmp_path / "w.pth")
    model = create_model("resnet18", num_classes=3, pretrained=tmp_path / "w.pth")
    assert "122 kept" in model.events[-1]["message"]
    with pytest.raises(UserError, match="a checkpoint file"):
        create_model("resnet18", pretrained=tmp_path / "absent.pth")


def test_official_weights_are_timms(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    create, asked = timm.create_model, []

    def hub(name: str, pretrained: bool = False) -> Any:
        asked.append((name, pretrained))
        return create(name)

    monkeypatch.setattr(timm, "create_model", hub)
    model: Any = create_model("resnet18", pretrained=True)
    assert asked == [("resnet18", True)]
    assert "timm:resnet18" in model.events[-1]["message"]


@pytest.mark.parametrize("option", [{"token_mixer": "local_attention"}, {"stages": "PPTT"}, {"init": "warm"}])
@pytest.mark.parametrize("name", ["resnet18", "timm:resnet10t", "rad_dino"])
def test_mixers_cannot_be_exchanged(name: str, option: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="no blocks whose parts could be exchanged, got"):
        create_model(name, **option)


def test_rad_dino_needs_weights() -> None:
    with pytest.raises(
        UserError, match=r"a file of weights, got None, try pretrained: model\.safetensors of microsoft"
    ):
        create_model("rad_dino", num_classes=2, image_size=70)


def test_inflation_needs_weights() -> None:
    with pytest.raises(UserError, match="weights to inflate, got None"):
        create_model("resnet18", spatial_dims=3, inflate="mean")


def test_golden() -> None:
    """Another network under the same name must raise ``NUMERICS_VERSION``; see tests/architectures/test_golden.py."""
    shapes = {}
    for name in BASELINES:
        full = "timm:resnet18" if name == "timm" else name
        with torch.device("meta"):
            model = make_baseline(full, num_classes=2, in_channels=1, spatial_dims=2, options={})
        text = "\n".join(f"{key} {tuple(value.shape)}" for key, value in model.state_dict().items())
        shapes[name] = hashlib.sha256(text.encode()).hexdigest()[:12]
    assert shapes == {
        "intensity": "f69d9af1a0b3",
        "rad_dino": "b73362212f52",
        "resnet18": "274a74b63728",
        "timm": "ef97b345829e",
        "unet": "ca1f69c78c81",
        "unet_on_patch_embedding": "f92e61244319",
    }


def test_unknown_names() -> None:
    with pytest.raises(UserError, match="'resnet18'"):
        create_model("resnet_18")
    with pytest.raises(UserError, match="a MetaFormer"):
        ModelConfig(name="resnet18").configuration()


def test_info_and_list(capsys: pytest.CaptureFixture[str]) -> None:
    info = model_info("resnet18")
    assert info["parameters"] == 11_689_512
    assert info["macs"] / 1e9 == pytest.approx(info["published_macs"], rel=0.02)
    assert set(info) == set(model_info("metaformer_nano"))
    assert main(["list", "models", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["resnet18"]["parameters"] == 11_689_512
    assert rows["rad_dino"]["paper"] == "arXiv:2401.10815"
    assert rows["rad_dino"]["parameters"] > 85e6


def test_a_list_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    assert baseline_info("rad_dino")["parameters"] is None
    assert model_info("resnet18")["parameters"] == 11_689_512


def test_takes_names_fields_of_the_configuration() -> None:
    fields = set(ModelConfig.__dataclass_fields__)
    for name in BASELINES:
        entry: Any = BASELINES[name]
        assert entry.takes <= fields
    assert RadDino.takes
    assert baseline_loading.OFFICIAL == "official"


def study(data: str, **plain: Any) -> StudyConfig:
    recipe = {"preset": "short", "epochs": 1, "batch_size": 4, "warmup_epochs": 0}
    return StudyConfig.of({"seeds": 1, "data": data, "recipe": recipe, "precision": "32-true", **plain})


def test_in_a_study() -> None:
    kernels = [{"name": "resnet18", "kernel_size": k} for k in (5, 7)]
    grid = study("digits", mixers="pooling", baselines=["resnet18", *kernels, "timm:resnet10t", "poolformer_s12"])
    runs = grid.runs()
    labels = ["pooling", "resnet18", "resnet18-k5", "resnet18-k7", "timm:resnet10t", "poolformer_s12"]
    assert [run.label for run in runs] == labels
    assert [run.model.name for run in runs][1:] == ["resnet18"] * 3 + ["timm:resnet10t", "poolformer_s12"]
    assert len({run.hash("x") for run in runs}) == len(runs)
    alone = RunConfig(model=ModelConfig(name="resnet18"), data=DataConfig(), recipe=grid.recipe, precision="32-true")
    assert alone.hash("x") == runs[1].hash("x")


def test_baselines_have_recipes_and_errors_of_their_own() -> None:
    grid = study("digits", baselines="resnet18", mixer_recipes={"resnet18": {"learning_rate": 0.01}})
    assert [run.recipe.learning_rate for run in grid.runs()] == [0.01]
    with pytest.raises(UserError, match="'kernel_size'"):
        study("digits", baselines=[{"name": "resnet18", "kernel_sizes": 5}]).runs()
    with pytest.raises(UserError, match="at least one mixer"):
        study("digits")
    same = study("digits", baselines=[{"name": "resnet18", "pretrained": "a/b/weights.pth"}])
    assert same.runs()[0].label == "resnet18-pretrained=weights"
    named = study("digits", baselines=[{"name": "resnet18", "kernel_size": 5, "label": "wide"}]).runs()[0]
    assert (named.label, named.model.kernel_size) == ("wide", 5)


def test_layer_decay_needs_blocks() -> None:
    with pytest.raises(UserError, match=r"layer_decay: expected a model with stages of blocks"):
        check_recipe(Recipe(layer_decay=0.8), describe("digits"), create_model("resnet18", num_classes=2))


@pytest.mark.slow
def test_trained_beside_mixers(tmp_path: Path) -> None:
    images = image_folder(tmp_path / "images", {"a": 10, "b": 10}, size=(32, 32))
    baselines = ["resnet18", "timm:test_vit"]
    config = study(f"folder:{images}", mixers="pooling", baselines=baselines)
    result, said = train(config, tmp_path / "out")
    assert not result.failed, said
    runs = runs_by_label(tmp_path / "out")
    assert set(runs) == {"pooling", "resnet18", "timm:test_vit"}
    page = build_report(tmp_path / "out").read_text()
    assert all(label in page for label in runs)
    for run in runs.values():
        summary = run.summary()
        assert summary is not None
        assert summary["macs"] > 0
        assert summary["parameters"] > 0
    assert evaluate_run(runs["timm:test_vit"].path, "test")["cases"] > 0


def test_the_example_of_a_network_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BASELINES, "_entries", dict(BASELINES._entries))
    import_files([str(Path(__file__).parents[2] / "examples" / "my_baseline.py")])
    assert "two_layers" in list_models()
    for dims in (2, 3):
        model = create_model("two_layers", num_classes=3, spatial_dims=dims, image_size=16)
        assert model(torch.randn(2, 3, *(16,) * dims)).shape == (2, 3)
        assert model.cost((16,) * dims).macs_computed == 16**dims * 48 + 4**dims * 512 + 96
    with pytest.raises(UserError, match=r"its own options \(image_size\)"):
        create_model("two_layers", kernel_size=3)
