"""Arms of a study: variants of the model, recipes of their own, profiles of the file."""

from __future__ import annotations

from typing import Any

import pytest

from mixlab.errors import UserError
from mixlab.registry import Part
from mixlab.studies.grid import StudyConfig
from mixlab.studies.profiles import with_profile
from mixlab.studies.run_config import RunConfig

MIXERS = ["pooling", "attention", {"name": "local_attention", "kernel_size": 5}]


def runs(**plain: Any) -> dict[str, RunConfig]:
    made = StudyConfig.of({"seeds": 1, **plain}).runs()
    found = {run.label: run for run in made}
    assert len(found) == len(made)
    return found


def test_variants_change_the_model_or_the_mixer() -> None:
    variants: dict[str, Any] = {
        "plain": {},
        "sloped": {"mixer": {"slopes": True}, "only": ["local_attention"]},
        "token": {"class_token": True, "without": ["pooling"]},
        "deep": {"name": "metaformer_s12", "stages": "PPTT"},
    }
    found = runs(mixers=MIXERS, variants=variants)
    assert list(found) == [
        "pooling-plain", "pooling-deep",
        "attention-plain", "attention-token", "attention-deep",
        "local_attention-k5-plain", "local_attention-k5-sloped", "local_attention-k5-token", "local_attention-k5-deep",
    ]  # fmt: skip
    assert found["attention-token"].model.class_token
    assert not found["attention-plain"].model.class_token
    sloped = found["local_attention-k5-sloped"]
    assert Part.of(sloped.model.token_mixer).options == {"kernel_size": 5, "slopes": True}
    assert (sloped.variant, found["pooling-plain"].variant) == ("sloped", "plain")
    assert (found["pooling-deep"].model.name, found["pooling-deep"].model.stages) == ("metaformer_s12", "PPTT")


def test_a_mixers_only_variant_is_no_part_of_its_label() -> None:
    variants: dict[str, Any] = {"half": {"stages": "PPTT", "without": ["pooling"]}, "all": {"only": ["pooling"]}}
    found = runs(mixers=["pooling", "conv"], variants=variants)
    assert {label: run.variant for label, run in found.items()} == {"pooling": "all", "conv": "half"}


def test_one_variant_is_no_part_of_the_label_and_a_name_changes_no_hash() -> None:
    alone = runs(mixers=["pooling"], variants={"bare": {}})["pooling"]
    assert alone.variant == "bare"
    assert alone.hash("f") == runs(mixers=["pooling"])["pooling"].hash("f")


def test_a_mixer_may_have_a_label_of_its_own() -> None:
    mixers: list[Any] = [{"name": "local_attention", "subtract_input": True, "label": "local"}, "conv"]
    found = runs(mixers=mixers, kernel_sizes=[3, 5], mixer_recipes={"local_attention": {"epochs": 7}})
    assert list(found) == ["local-k3", "local-k5", "conv-k3", "conv-k5"]
    assert Part.of(found["local-k3"].model.token_mixer).options == {"subtract_input": True}
    assert found["local-k3"].recipe.epochs == 7
    found["local-k3"].model.build(2, 1, 2)


def test_some_arms_only() -> None:
    plain: dict[str, Any] = {"mixers": ["conv", "pooling", "sep_conv"], "kernel_sizes": [3, 5]}
    everything = runs(**plain)
    some = runs(**plain, only=["*conv-k3", "pooling-k5"])
    assert list(some) == ["conv-k3", "pooling-k5", "sep_conv-k3"]
    assert some == {label: everything[label] for label in some}
    with pytest.raises(
        UserError, match=r"study only: expected a pattern of one of conv-k3, conv-k5, pool.*got .'convolu"
    ):
        runs(**plain, only="convolution-*")


def test_recipes_of_mixers_and_data_sets() -> None:
    data = ["digits", {"name": "mni152"}]
    found = runs(
        mixers=["pooling", "attention"],
        data=data,
        recipe={"epochs": 10, "batch_size": 128, "learning_rate": 1e-3},
        data_recipes={"mni152": {"epochs": 4}},
        mixer_recipes={"attention": {"epochs": "x2", "iterations": "x2", "batch_size": "x0.25", "accumulate": 4}},
    )
    pooling, attention = found["pooling-mni152"].recipe, found["attention-mni152"].recipe
    assert (pooling.epochs, pooling.batch_size, pooling.accumulate) == (4, 128, 1)
    assert (attention.epochs, attention.batch_size, attention.accumulate) == (8, 32, 4)
    assert attention.iterations is None  # twice a budget that is not set is none
    assert found["attention-digits"].recipe.epochs == 20


@pytest.mark.parametrize(("recipes", "labels"), [
    ("own", ["pooling", "attention"]),
    ("matched", ["pooling", "attention"]),
    ("both", ["pooling", "attention", "attention-matched"]),
])  # fmt: skip
def test_matched_recipes_beside_own_ones(recipes: str, labels: list[str]) -> None:
    found = runs(mixers=["pooling", "attention"], recipes=recipes, mixer_recipes={"attention": {"epochs": "x2"}})
    assert list(found) == labels
    own = found["pooling"].recipe.epochs
    assert found["attention"].recipe.epochs == own * (1 if recipes == "matched" else 2)
    if recipes == "both":
        assert found["attention-matched"].recipe == found["pooling"].recipe
        assert [run.recipes for run in found.values()] == ["own", "own", "matched"]


@pytest.mark.parametrize(("plain", "match"), [
    ({"variants": {"a": {"clas_token": True}}}, "unknown key in study variants, a.*'class_token'"),
    ({"variants": {"a": {"only": ["conv"]}}}, "unknown mixer of this study in variants, a, only.*'conv'"),
    ({"variants": {"a": {"only": "pooling"}}}, "study variants, a, only: expected a list of mixers"),
    ({"variants": {"a/b": {}}}, "study variants: expected names of letters"),
    ({"variants": {"a": {"mixer": "pooling"}}}, "study variants, a, mixer: expected options"),
    ({"variants": {"a": {"registers": "many"}}}, "study variants, a, registers: expected"),
    ({"variants": {"a": {"only": []}}}, "expected a grid with at least one run"),
    ({"data_recipes": {"mnist": {"epochs": 1}}}, "unknown data set of this study in data_recipes"),
    ({"mixer_recipes": {"pooling": {"schedule": "x2"}}}, "pooling, schedule: expected a factor for a number"),
    ({"recipes": "mine"}, "study, recipes"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_in_words(plain: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        StudyConfig.of({"mixers": ["pooling"], "seeds": 1, **plain}).runs()


FILE: dict[str, Any] = {
    "name": "mine",
    "mixers": ["pooling"],
    "data": [{"name": "digits", "image_size": 224}, {"name": "mni152"}],
    "recipe": {"iterations": 100, "batch_size": 8},
    "profiles": {
        "full": None,
        "small": {"data": {"image_size": 28}, "recipe": {"iterations": None, "epochs": 2}, "seeds": 1},
        "other": {"data": [{"name": "digits"}]},
    },
}


def test_a_profile_goes_over_the_file() -> None:
    small = StudyConfig.of(with_profile(FILE, "small"))
    assert (small.name, small.profile) == ("mine-small", "small")
    assert [(d.name, d.image_size) for d in small.data] == [("digits", 28), ("mni152", 28)]
    assert (small.recipe.iterations, small.recipe.epochs, small.recipe.batch_size) == (None, 2, 8)
    full = StudyConfig.of(with_profile(FILE, "full"))
    assert (full.data[0].image_size, full.recipe.iterations) == (224, 100)
    assert len(StudyConfig.of(with_profile(FILE, "other")).data) == 1
    assert FILE["data"][1] == {"name": "mni152"}


def test_a_profile_must_be_chosen_and_exist() -> None:
    with pytest.raises(
        UserError, match="study: expected a profile, one of full, small, other, got none, try --profile"
    ):
        with_profile(FILE, None)
    with pytest.raises(UserError, match="unknown profile of study"):
        with_profile(FILE, "smal")
    with pytest.raises(UserError, match="expected a study file with profiles"):
        with_profile({"mixers": ["pooling"]}, "small")
    with pytest.raises(UserError, match="profiles: expected a mapping"):
        with_profile({"profiles": ["small"]}, "small")
    assert with_profile({"mixers": ["pooling"]}, None) == {"mixers": ["pooling"]}
