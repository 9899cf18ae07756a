"""Studies of models that start from weights: arms by how a mixer starts, hashes by content."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from mixlab import create_model
from mixlab.errors import UserError
from mixlab.models import ModelConfig
from mixlab.studies.evaluation import evaluate_run
from mixlab.studies.plan import FROZEN, make_plan
from mixlab.studies.run import train_run
from mixlab.studies.run_config import RunConfig
from mixlab.studies.run_folder import run_folders
from mixlab.training.machine import Machine
from tests.studies.small import RECIPE, make_images, study, train

ARMS = ["pooling", {"name": "local_attention", "init": "pooling"}, {"name": "sep_conv", "init": "pooling"}]


def nano_file(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    torch.save(create_model("metaformer_nano", num_classes=5, in_channels=1).state_dict(), path)
    return path


def test_arms_start_from_the_same_weights(tmp_path: Path) -> None:
    images, weights = make_images(tmp_path / "images"), nano_file(tmp_path / "nano.pth")
    plain: dict[str, Any] = {
        "model": {"name": "metaformer_nano", "pretrained": str(weights)},
        "recipe": {**RECIPE, "epochs": 1, "new_lr_scale": 2.0},
        "imports": [],
    }
    train(study(images, ARMS, **plain), tmp_path / "out")
    runs = {folder.config()["label"]: folder for folder in run_folders(tmp_path / "out")}
    assert set(runs) == {"pooling", "local_attention-init=pooling", "sep_conv-init=pooling"}
    messages = {}
    for label, folder in runs.items():
        summary = folder.summary()
        assert summary is not None, folder.status()
        messages[label] = "".join(e["message"] for e in summary["events"] if e["kind"] == "weights")
    assert "new head.fc.weight: 2 classes" in messages["pooling"]
    assert "local_attention acts as pooling" in messages["local_attention-init=pooling"]
    assert "at borders it counts zeros" in messages["sep_conv-init=pooling"]
    weights.unlink()  # a trained run needs it no more
    folder = runs["local_attention-init=pooling"]
    summary = folder.summary()
    assert summary is not None
    again = evaluate_run(folder.path, "test", device="cpu")
    assert again["loss"] == pytest.approx(summary["test"]["loss"], rel=1e-6)
    with pytest.raises(UserError, match="expected a checkpoint file"):
        make_plan(study(images, ARMS, **plain).runs(), tmp_path / "out", "cpu")


def test_weights_count_by_content_wherever_they_lie(tmp_path: Path) -> None:
    first, other = nano_file(tmp_path / "a.pth"), nano_file(tmp_path / "b.pth", seed=1)
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "c.pth"
    copy.write_bytes(first.read_bytes())

    def hash_with(**model: Any) -> str:
        return RunConfig(model=ModelConfig(**model), precision="32-true").hash("f")

    assert hash_with(pretrained=str(first)) == hash_with(pretrained=str(copy))
    assert len({hash_with(), hash_with(pretrained=str(first)), hash_with(pretrained=str(other))}) == 3
    assert hash_with(pretrained="timm:a") != hash_with(pretrained="timm:b")
    assert hash_with(pretrained=str(first)) != hash_with(pretrained=str(first), inflate="mean")
    warm, random = ({"token_mixer": {"name": "conv", "init": init}} for init in ("warm", "random"))
    assert hash_with(**warm) != hash_with(**random)


def test_weights_that_changed_since_planning_are_refused(tmp_path: Path) -> None:
    images, weights = make_images(tmp_path / "images"), nano_file(tmp_path / "nano.pth")
    plain = {"model": {"name": "metaformer_nano", "pretrained": str(weights)}, "imports": []}
    config = study(images, ["pooling"], **plain)
    (run,) = make_plan(config.runs(), tmp_path / "out", "cpu").runs
    run.folder.create(run.config.to_plain(run.fingerprint))
    nano_file(weights, seed=1)
    with pytest.raises(UserError, match=r"weights .*nano.pth: changed since this run was planned"):
        train_run(run, Machine())


def test_what_does_not_fit_is_found_before_training(tmp_path: Path) -> None:
    images, weights = make_images(tmp_path / "images"), nano_file(tmp_path / "nano.pth")
    model = {"name": "metaformer_nano", "pretrained": str(weights)}
    runs = study(images, [{"name": "conv", "init": "warm"}], model=model, imports=[]).runs()
    with pytest.raises(UserError, match=r"init='warm' for conv: .*got 'pooling'"):
        make_plan(runs, tmp_path / "out", "cpu")
    scaled = study(images, ["pooling"], recipe={**RECIPE, "new_lr_scale": 2.0}, imports=[]).runs()
    with pytest.raises(UserError, match=r"recipe.new_lr_scale: expected a model that starts from weights"):
        make_plan(scaled, tmp_path / "out", "cpu")


def test_a_frozen_backbone_with_weights_is_not_called_random(tmp_path: Path) -> None:
    images, weights = make_images(tmp_path / "images"), nano_file(tmp_path / "nano.pth")
    plain: dict[str, Any] = {"recipe": {**RECIPE, "freeze_backbone": True}, "imports": []}
    random = study(images, ["pooling"], **plain).runs()
    assert FROZEN in make_plan(random, tmp_path / "out", "cpu").notes
    model = dataclasses.replace(random[0].model, pretrained=str(weights))
    loaded = [dataclasses.replace(run, model=model) for run in random]
    assert FROZEN not in make_plan(loaded, tmp_path / "out", "cpu").notes


def test_a_folder_of_weights_counts_by_its_files(tmp_path: Path) -> None:
    """RAD-DINO's weights may be given as the published folder."""
    for name in ("here", "there", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(b"other" if name == "other" else b"same")

    def hash_with(name: str) -> str:
        return RunConfig(model=ModelConfig(name="rad_dino", pretrained=str(tmp_path / name))).hash("f")

    assert hash_with("here") == hash_with("there") != hash_with("other")


def test_what_extensions_add_is_recorded(tmp_path: Path) -> None:
    images = make_images(tmp_path / "images")
    mixer = {"name": "local_attention", "relative_bias": True}
    model = {"name": "metaformer_nano", "registers": 1}
    train(study(images, [mixer], model=model, recipe={**RECIPE, "epochs": 1}, imports=[]), tmp_path / "out")
    (folder,) = run_folders(tmp_path / "out")
    summary = folder.summary()
    assert summary is not None
    (said,) = [e["message"] for e in summary["events"] if e["kind"] == "added parameters"]
    assert "relative_bias" in said
    assert "global_tokens" in said
