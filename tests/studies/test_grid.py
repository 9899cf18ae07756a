from __future__ import annotations

from typing import Any

import pytest

from mixlab.errors import UserError
from mixlab.studies.facts import slug
from mixlab.studies.grid import StudyConfig
from mixlab.studies.run_config import kernel_of


def grid(**plain: Any) -> list[tuple[str, int, int | None]]:
    return [(run.label, run.seed, run.fold) for run in StudyConfig.of(plain).runs()]


def labels(**plain: Any) -> list[str]:
    return [label for label, _, _ in grid(**plain, seeds=1)]


def test_kernel_sizes_apply_to_mixers_with_a_window_only() -> None:
    found = labels(mixers=["identity", "pooling", "attention", "local_attention"], kernel_sizes=[3, 5])
    assert found == ["identity", "pooling-k3", "pooling-k5", "attention", "local_attention-k3", "local_attention-k5"]


def test_a_mixer_with_a_kernel_of_its_own_appears_once() -> None:
    mixers: list[Any] = [{"name": "pooling", "kernel_size": 7}, {"name": "attention", "head_dim": 16}]
    assert labels(mixers=mixers, kernel_sizes=[3, 5]) == ["pooling-k7", "attention-head_dim=16"]


def test_mixers_can_be_cycled_over_the_blocks() -> None:
    assert labels(mixers=[["pooling", "attention"]]) == ["pooling+attention"]


def test_kernel_sizes_go_to_those_parts_of_a_cycled_list_that_have_one() -> None:
    mixed = StudyConfig.of({"mixers": [["pooling", "attention"]], "kernel_sizes": [3, 5], "seeds": 1}).runs()
    assert [run.label for run in mixed] == ["pooling-k3+attention", "pooling-k5+attention"]
    assert [run.model.kernel_size for run in mixed] == [None, None]
    assert [kernel_of(run.model) for run in mixed] == [3, 5]
    mixed[0].model.build(2, 1, 2)
    assert labels(mixers=[["pooling", "local_attention"]], kernel_sizes=[3]) == ["pooling-k3+local_attention-k3"]
    fixed: list[Any] = [
        [{"name": "pooling", "kernel_size": 7}, "local_attention"],
        [{"name": "pooling", "kernel_size": 7}],
    ]
    assert labels(mixers=fixed, kernel_sizes=[3]) == ["pooling-k7+local_attention-k3", "pooling-k7"]
    assert labels(mixers=[["pooling", "attention"]], model={"kernel_size": 5}) == ["pooling-k5+attention"]


def test_stages_and_data_sets_are_axes_and_part_of_the_label_when_they_vary() -> None:
    assert labels(mixers="pooling", stages=["TTTT"]) == ["pooling"]
    assert labels(mixers="pooling", stages=["TTTT", "PPTT"]) == ["pooling-TTTT", "pooling-PPTT"]
    assert labels(mixers="pooling", data=["digits", "medmnist:bloodmnist@28"]) == [
        "pooling-digits",
        "pooling-bloodmnist@28",
    ]
    assert slug("folder:/my/images/") == "images"


def test_seeds_and_folds_are_axes() -> None:
    found = grid(mixers=["pooling"], seeds=2, base_seed=10, data={"name": "digits", "folds": 2})
    assert found == [("pooling", 10, 0), ("pooling", 10, 1), ("pooling", 11, 0), ("pooling", 11, 1)]
    assert [seed for _, seed, _ in grid(mixers=["pooling"], seeds=[4, 2])] == [4, 2]
    assert [fold for _, _, fold in grid(mixers=["pooling"], seeds=1, data={"folds": 3, "fold": 1})] == [1]


def test_a_round_of_all_mixers_comes_before_the_next_seed() -> None:
    assert [label for label, _, _ in grid(mixers=["pooling", "identity"], seeds=2)] == ["pooling", "identity"] * 2


def test_recipes_can_differ_by_mixer() -> None:
    study = StudyConfig.of(
        {
            "mixers": ["pooling", "attention"],
            "recipe": {"preset": "short", "epochs": 7},
            "mixer_recipes": {"attention": {"batch_size": 16, "accumulate": 4}},
            "seeds": 1,
        }
    )
    pooling, attention = study.runs()
    assert (pooling.recipe.epochs, pooling.recipe.batch_size) == (7, 64)
    assert (attention.recipe.epochs, attention.recipe.batch_size, attention.recipe.accumulate) == (7, 16, 4)


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({}, "study mixers: expected at least one mixer"),
        ({"mixers": []}, "study mixers"),
        ({"mixers": ["pooling"], "seeds": 0}, "study seeds: expected at least one seed"),
        ({"mixers": ["pooling"], "seeds": [-1]}, "study seeds"),
        ({"mixers": ["pooling"], "data": []}, "study data"),
        ({"mixers": ["pooling"], "name": "a/b"}, "study name"),
        ({"mixers": ["poling"]}, "unknown token mixer.*'poling', try 'pooling'"),
        ({"mixers": [{"kernel_size": 3}]}, "part: expected a name"),
        ({"mixer": ["pooling"]}, "unknown key in study: .*'mixer', try 'mixers'"),
        ({"mixers": ["pooling"], "recipe": {"learning_rat": 1}}, "unknown key in study, recipe.*'learning_rate'"),
        ({"mixers": ["pooling"], "data": [{"nam": "digits"}]}, "unknown key in study, data.*'name'"),
        (
            {"mixers": ["pooling"], "recipe": {"learning_rate": "fast"}},
            "recipe.learning_rate: expected float, got fast",
        ),
        ({"mixers": ["pooling"], "mixer_recipes": {"poolin": {}}}, "mixer_recipes.*try 'pooling'"),
        (
            {"mixers": ["pooling"], "mixer_recipes": {"pooling": {"epoch": 1}}},
            "unknown key in mixer_recipes, pooling.*'epochs'",
        ),
        ({"mixers": ["pooling"], "model": {"name": "metaformer_nan"}, "data": "digits", "seeds": "x"}, "seeds"),
    ],
)
def test_bad_studies_are_refused_in_words(plain: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        StudyConfig.of(plain).runs()


def test_numbers_as_yaml_1_1_reads_them() -> None:
    """YAML 1.1 takes ``1e-3`` for text; the recipe takes it for the number that was meant."""
    study = StudyConfig.of({"mixers": ["pooling"], "recipe": {"learning_rate": "1e-3"}})
    assert study.recipe.learning_rate == 1e-3
