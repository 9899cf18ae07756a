"""The files of studies/token_mixers_medical: every profile is a grid, every published cell one configuration."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mixlab.baselines import is_baseline
from mixlab.cli.study import read_source
from mixlab.data import describe
from mixlab.models import ModelConfig
from mixlab.studies.configuration import merge, to_plain
from mixlab.studies.grid import StudyConfig
from mixlab.studies.profiles import with_profile
from mixlab.studies.published import read
from mixlab.studies.published_table import lookup, same
from mixlab.studies.report import build_report
from mixlab.studies.run_config import RunConfig
from mixlab.studies.run_folder import run_folders
from tests.studies.small import train

FOLDER = Path(__file__).resolve().parents[2] / "studies" / "token_mixers_medical"
FILES = sorted(FOLDER.glob("*.yaml"))
TABLES = sorted((FOLDER / "published").glob("*.csv"))


def profiles(file: Path) -> list[str]:
    return list(read_source(str(file))["profiles"])


def study(file: Path, profile: str) -> StudyConfig:
    return StudyConfig.of(with_profile(read_source(str(file)), profile))


def plain(run: RunConfig) -> dict[str, Any]:
    """As in config.yaml, but for hashes, which need the files."""
    return {str(k): v for k, v in to_plain(run).items()}


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_every_profile_is_a_grid_of_models_that_can_be_built(file: Path) -> None:
    assert {"full", "small", "smoke"} <= set(profiles(file))
    for profile in profiles(file):
        runs = study(file, profile).runs()
        assert len({(run.label, run.seed) for run in runs}) == len(runs), profile
        for model in {repr(run.model): run.model for run in runs}.values():
            ready(model)


def ready(model: ModelConfig) -> None:
    """The configuration holds together; where it starts from is not looked at."""
    if is_baseline(model.name):
        return
    free = dataclasses.replace(model, pretrained=None, weights_of={}, init="random", image_size=64)
    free.configuration(num_classes=2, in_channels=1)


@pytest.mark.parametrize("table", TABLES, ids=lambda f: f.stem)
def test_every_published_cell_is_one_configuration(table: Path) -> None:
    files = [f for f in FILES if (read_source(str(f)).get("published") or {}).get("table", "").endswith(table.name)]
    assert len(files) == 1
    config = study(files[0], "full")
    assert config.published is not None
    published = read(config.published, Path())
    found = [row.line for run in config.runs() if (row := published.match(published.facts(plain(run)))) is not None]
    with table.open() as lines:
        rows = len(list(csv.reader(lines))) - 1
    assert sorted(found) == list(range(2, rows + 2))


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_full_profiles_keep_the_protocol(file: Path) -> None:
    """A field that a study file says the publication had is that in its own full profile, unless an arm's recipe is its
    own, as it was there."""
    config = study(file, "full")
    if config.published is None:
        return
    own = set(config.mixer_recipes)
    for run in config.runs():
        content = plain(run)
        mixer = run.label.split("-")[0]
        for dotted, value in read(config.published, Path()).protocol.items():
            there, ours = lookup(content, dotted)
            if (mixer in own and dotted.startswith("recipe.")) or run.model.name == "resnet18":
                continue
            assert there, dotted
            assert same(ours, value), (run.label, dotted, ours)


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_the_header_names_every_profile_and_every_data_set_is_known(file: Path) -> None:
    header = file.read_text().partition("\nname:")[0]
    for profile in profiles(file):
        assert f"{file.stem}.yaml --profile {profile}" in header
    for data in study(file, "full").data:
        if not data.name.startswith(("folder:", "npz:")):
            masks = file.stem == "segmentation"
            assert (describe(data.name).task == "segmentation") == masks


SAMPLE = {
    "patch_embedding": ["*-none", "*-coord_mlp+conv"],
    "pptt_pretrained": ["local_attention-k3-*-pathmnist@224", "resnet18*-dermamnist@224"],
    "resnet18_medmnist": ["*-chestmnist@224"],
    "segmentation": ["identity-segformer-jsrt", "attention-fcn+position-tiger", "intensity-*", "unet_on_*-bones"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample_of_smoke(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data set and no published weights are at hand here: every run says what stood in, and nothing is set beside
    published numbers, where there are any."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no-cache"))
    values = with_profile(read_source(str(FOLDER / f"{name}.yaml")), "smoke")
    values = merge(values, {"only": SAMPLE[name], "data": {"root": str(tmp_path)}})
    result, printed = train(StudyConfig.of(values), tmp_path / "out")
    folders = run_folders(tmp_path / "out")
    assert result.states == {"finished": len(folders)}
    assert len(folders) >= len(SAMPLE[name])
    for folder in folders:
        said = folder.config()["stand_ins"]
        assert len(said) == (2 if folder.config()["model"]["pretrained"] else 1)
        assert [file.name for file in folder.checkpoints.iterdir()] == ["best.ckpt"]
    assert "stand-in: " in printed
    page = build_report(tmp_path / "out").read_text()
    assert "the scores of this report mean nothing" in page
    assert ("No label of this data set can be set beside the table" in page) == ("published" in values)
