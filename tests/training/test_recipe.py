from __future__ import annotations

import math

import pytest

from mixlab.errors import UserError
from mixlab.training.checks import shortest
from mixlab.training.recipe import PRESETS, Recipe, expand_preset
from mixlab.training.schedule import rate_at
from tests.training.toys import ToyCard


def test_defaults_are_the_study() -> None:
    recipe = Recipe()
    assert (recipe.learning_rate, recipe.weight_decay, recipe.label_smoothing) == (1e-3, 0.05, 0.1)
    assert (recipe.batch_size, recipe.warmup_epochs, recipe.warmup_rate, recipe.floor_rate) == (128, 5, 1e-5, 1e-5)
    assert (recipe.class_weights, recipe.schedule, recipe.affine_std) == ("balanced", "cosine", 0.1)
    assert PRESETS["study"] == {}


def test_preset_gives_way_to_given_values() -> None:
    assert Recipe.of({"preset": "short"}).batch_size == PRESETS["short"]["batch_size"]
    assert Recipe.of({"preset": "short", "batch_size": 7}).batch_size == 7
    with pytest.raises(UserError, match=r"unknown recipe preset.*'shrt'.*'short'"):
        expand_preset({"preset": "shrt"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": 0}, "recipe.epochs: expected at least 1, got 0"),
        ({"batch_size": -1}, "recipe.batch_size"),
        ({"iterations": 0}, "recipe.iterations"),
        ({"learning_rate": 0.0}, "recipe.learning_rate"),
        ({"learning_rate": math.nan}, "recipe.learning_rate"),
        ({"label_smoothing": 1.0}, "recipe.label_smoothing"),
        ({"ema_decay": 1.0}, "recipe.ema_decay"),
        ({"layer_decay": 1.5}, "recipe.layer_decay"),
        ({"clip_norm": 0.0}, "recipe.clip_norm"),
        ({"new_lr_scale": 0.0}, "recipe.new_lr_scale"),
        ({"sampler": "balanced"}, "class_weights: none"),
        ({"freeze_backbone": True, "layer_decay": 0.7}, "recipe.layer_decay"),
    ],
)
def test_bad_values_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Recipe(**options)  # type: ignore[arg-type]


def test_iterations_set_the_epochs() -> None:
    assert Recipe(iterations=35000).epochs_for(79) == 444
    assert Recipe(epochs=9).epochs_for(79) == 9


def test_schedule_warms_up_and_falls_to_the_floor() -> None:
    recipe = Recipe(epochs=50)
    rates = [rate_at(recipe, e, 50) for e in range(51)]
    assert rates[0] == pytest.approx(1e-5)
    assert rates[5] == pytest.approx(1e-3)
    assert rates[:6] == sorted(rates[:6])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[50] == pytest.approx(1e-5)
    # Half way between warm-up and end the cosine is half way between peak and floor.
    assert rate_at(recipe, 27.5, 50) == pytest.approx((1e-3 + 1e-5) / 2)


def test_warm_up_is_at_most_half_of_the_training() -> None:
    assert rate_at(Recipe(epochs=4), 2, 4) == pytest.approx(1e-3)
    assert rate_at(Recipe(epochs=1), 0, 1) == pytest.approx(1e-3)
    assert rate_at(Recipe(schedule="constant", epochs=20), 19, 20) == 1e-3


def test_the_same_training_is_written_in_one_way() -> None:
    card, same = ToyCard(task="segmentation"), Recipe(crop_size=64)
    assert shortest(Recipe(crop_size=[64, 64], loss="dice_ce"), card) == same == shortest(same, card)
    other = Recipe(crop_size=[64, 32], loss="dice")
    assert shortest(other, card) == other
    assert shortest(Recipe(loss="cross_entropy"), ToyCard()) == Recipe()
