"""What runs take from outside: weights of another study's runs, and stand-ins for what is not at hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from mixlab.data import DataConfig
from mixlab.errors import UserError
from mixlab.models import ModelConfig
from mixlab.registry import Part
from mixlab.studies.inputs import resolve
from mixlab.studies.run_config import RunConfig
from mixlab.studies.run_folder import RunFolder, run_folders
from tests.studies.small import RECIPE, make_images, study, train

NANO = {"name": "metaformer_nano"}


def test_a_study_starts_from_the_runs_of_another(tmp_path: Path) -> None:
    """Each seed from its own, with the mixers that they were trained with."""
    images = make_images(tmp_path / "images")
    short = {"recipe": {**RECIPE, "epochs": 1}, "imports": [], "seeds": 2, "model": NANO}
    first: dict[str, Any] = {**short, "stages": ["PPTT"]}
    assert train(study(images, ["attention"], **first), tmp_path / "out" / "first")[0].failed == 0
    start = {"pretrained": "study:first/attention", "init": "warm", "stages": "PPTT"}
    local = {"name": "local_attention", "kernel_size": 15}
    second: dict[str, Any] = {**short, "variants": {"scratch": {}, "warm": start}}
    result, _ = train(study(images, [local], **second), tmp_path / "out" / "second")
    assert result.states == {"finished": 4}
    runs = {(f.config()["label"], f.config()["seed"]): f for f in run_folders(tmp_path / "out" / "second")}
    for seed in (0, 1):
        folder = runs["local_attention-k15-warm", seed]
        model = folder.config()["model"]
        assert f"attention-s{seed}-" in model["pretrained"]
        assert model["weights_of"] == {"token_mixer": "attention", "stages": "PPTT"}
        summary = folder.summary()
        assert summary is not None
        said = "".join(e["message"] for e in summary["events"] if e["kind"] == "weights")
        assert "0 new, 0 dropped" in said
    assert runs["local_attention-k15-scratch", 0].config()["model"]["pretrained"] is None


def cell(**model: Any) -> RunConfig:
    return RunConfig(model=ModelConfig(**{**NANO, **model}), label="mine", seed=1)


def test_a_reference_without_a_finished_run_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"study:first/pooling: expected a finished run of 'pooling' with seed 1, got no"
    ):
        resolve([cell(pretrained="study:first/pooling")], tmp_path / "second", stand_ins=True)
    other = RunFolder(tmp_path / "first" / "runs" / "conv-s1-0")
    other.create({"label": "conv", "seed": 1, "model": {}}, [])
    with pytest.raises(UserError, match="got runs of conv, try to run the study first first"):
        resolve([cell(pretrained="study:first/pooling")], tmp_path / "second", stand_ins=False)
    with pytest.raises(UserError, match="got it pending"):
        resolve([cell(pretrained="study:first/conv")], tmp_path / "second", stand_ins=False)


def test_what_is_not_at_hand_is_replaced_and_recorded(tmp_path: Path) -> None:
    data = DataConfig(name="medmnist:chestmnist@224", root=tmp_path, train_per_class=3)
    absent = dataclasses.replace(cell(name="poolformer_s12", pretrained=str(tmp_path / "none.pth")), data=data)
    present = cell()
    got, same = resolve([absent, present], tmp_path / "out", stand_ins=True)
    assert same == present
    assert (got.data.name, got.data.train_per_class) == ("stand-in:medmnist:chestmnist@224", None)
    assert [said.split(" is not")[0] for said in got.stand_ins] == [
        "medmnist:chestmnist@224",
        f"{tmp_path / 'none.pth'} for poolformer_s12",
    ]
    assert got.model.pretrained == str(tmp_path / "out" / "stand-ins" / "stand-in-poolformer_s12.pth")
    got.model.create(4, 1)
    assert resolve([absent], tmp_path / "out", stand_ins=False) == [absent]


def test_weights_that_are_at_hand_stay(tmp_path: Path) -> None:
    file = tmp_path / "mine.pth"
    torch.save({"w": torch.zeros(1)}, file)
    mine = cell(pretrained=str(file))
    assert resolve([mine], tmp_path / "out", stand_ins=True) == [mine]
    assert not (tmp_path / "out").exists()


def test_baselines_get_stand_ins_of_their_own(tmp_path: Path) -> None:
    absent = cell(name="resnet18", kernel_size=5, pretrained=str(tmp_path / "none.pth"))
    (got,) = resolve([absent], tmp_path, stand_ins=True)
    got.model.create(2, 1)
    assert Part.of(got.model.name).name == "resnet18"
    assert got.stand_ins
