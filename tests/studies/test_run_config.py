"""The hash names what changes the result, and nothing else, for ever."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mixlab.data import DataConfig
from mixlab.models import ModelConfig
from mixlab.studies import run_config
from mixlab.studies.configuration import changed_fields
from mixlab.studies.run_config import RunConfig
from mixlab.training.recipe import Recipe

# These must never change without a new NUMERICS_VERSION: finished runs would not be found again.
GOLDEN: dict[str, tuple[RunConfig, str]] = {
    "defaults": (RunConfig(precision="32-true"), "d6717071ab12"),
    "a cell of a study": (
        RunConfig(
            model=ModelConfig(token_mixer="local_attention", kernel_size=5, stages="PPTT"),
            data=DataConfig(name="medmnist:bloodmnist@28", folds=5, fold=2),
            recipe=Recipe(epochs=30, batch_size=64),
            seed=3,
            precision="bf16-mixed",
        ),
        "a335ecfcfb27",
    ),
    "a folder": (
        RunConfig(data=DataConfig(name="folder:/home/me/images", image_size=[64, 32]), precision="32-true"),
        "174c15bef256",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_hashes(name: str) -> None:
    config, golden = GOLDEN[name]
    assert config.hash("fingerprint") == golden


def base(**changes: Any) -> RunConfig:
    return dataclasses.replace(RunConfig(precision="32-true"), **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"precision": "bf16-mixed"},
        {"recipe": Recipe(epochs=99)},
        {"model": ModelConfig(token_mixer="identity")},
        {"model": ModelConfig(kernel_size=5)},
        {"data": DataConfig(train_per_class=20)},
        {"data": DataConfig(folds=5, fold=0)},
    ],
)
def test_what_changes_the_result_changes_the_hash(changes: dict[str, Any]) -> None:
    assert base(**changes).hash("f") != base().hash("f")


def test_data_content_and_numerics_version_change_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    before = base().hash("f")
    assert base().hash("g") != before
    monkeypatch.setattr(run_config, "NUMERICS_VERSION", run_config.NUMERICS_VERSION + 1)
    assert base().hash("f") != before


@pytest.mark.parametrize(
    "changes",
    [{"label": "another"}, {"data": DataConfig(root=Path("/elsewhere"), download=True)}],
)
def test_names_and_places_do_not_change_the_hash(changes: dict[str, Any]) -> None:
    assert base(**changes).hash("f") == base().hash("f")


def test_a_folder_may_lie_anywhere() -> None:
    here, there = (base(data=DataConfig(name=f"folder:{path}")) for path in ("/a/images", "/b"))
    assert here.hash("f") == there.hash("f") != base().hash("f")


def test_the_content_of_imported_files_counts_not_their_place(tmp_path: Path) -> None:
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text("x = 1\n")
    two.write_text("x = 1\n")
    first = base(imports=[str(one)]).hash("f")
    assert base(imports=[str(two)]).hash("f") == first != base().hash("f")
    two.write_text("x = 2\n")
    assert base(imports=[str(two)]).hash("f") != first


def test_a_new_field_with_a_default_changes_nothing() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Longer(Recipe):
        novelty: float = 0.5

    assert changed_fields(Longer(epochs=3)) == changed_fields(Recipe(epochs=3)) == {"epochs": 3}
    assert changed_fields(Longer(novelty=0.1)) == {"novelty": 0.1}
