"""Rankings of masks: Dice as a function of case weights, empty structures, cases that belong together."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mixlab.studies.case_metrics import case_metric, point_value
from mixlab.studies.statistics import Outcome, rank, select
from mixlab.training.mask_scores import MaskScores


def scores(seed: int, skill: float, *, cases: int = 40, groups: int | None = None) -> MaskScores:
    """Masks of two structures, of which a share ``skill`` is found; the truth is the same for all seeds."""
    true = np.random.default_rng(0).integers(50, 100, (cases, 2))
    rng = np.random.default_rng(seed)
    shared = np.repeat(rng.normal(0, 0.05, (groups or cases, 2)), cases // (groups or cases), axis=0)
    hit = np.clip(true * (skill + shared), 0, true).astype(np.int64)
    ids = np.array([f"case{i:03d}" for i in range(cases)])
    names = None if groups is None else np.array([f"patient{i * groups // cases}" for i in range(cases)])
    return MaskScores(ids, true, hit, hit, groups=names)


def test_the_rule_for_empty_structures() -> None:
    """In neither: left out. In one only: Dice 0."""
    found = MaskScores(
        ids=np.array(["a", "b", "c"]),
        true=np.array([[10, 0], [0, 0], [10, 4]]),
        said=np.array([[10, 0], [7, 0], [0, 4]]),
        hit=np.array([[10, 0], [0, 0], [0, 2]]),
    )
    np.testing.assert_array_equal(found.dice(), [[1.0, np.nan], [0.0, np.nan], [0.0, 0.5]])
    metrics = found.metrics()
    assert metrics["per_structure_dice"] == [pytest.approx(1 / 3), 0.5]
    assert metrics["cases_without"] == [0, 2]
    assert metrics["dice"] == pytest.approx((1 / 3 + 0.5) / 2)
    assert metrics["dice"] == pytest.approx(point_value(found, "dice"))
    assert "dice_unmasked" not in metrics
    assert "hd95" not in metrics


def test_nothing_defined_is_none() -> None:
    nothing = np.zeros((2, 1), dtype=np.int64)
    metrics = MaskScores(np.array(["a", "b"]), nothing, nothing, nothing, np.full((2, 1), np.nan)).metrics()
    assert metrics["dice"] is None
    assert metrics["hd95"] is None


def test_what_is_said_on_ignored_pixels_costs_unmasked_dice_only() -> None:
    one = np.array([[10]])
    found = MaskScores(np.array(["a"]), one, one, one, said_unmasked=np.array([[30]]))
    assert found.metrics()["dice"] == 1.0
    assert found.metrics()["dice_unmasked"] == pytest.approx(20 / 40)
    assert point_value(found, "dice_unmasked") == pytest.approx(0.5)


def test_weights_repeat_cases() -> None:
    """A case of weight two counts as the case and its copy."""
    found, weights = scores(1, 0.8, cases=4), np.array([[2.0, 0.0, 1.0, 1.0]])
    chosen = [0, 0, 2, 3]
    copied = MaskScores(np.array(list("abcd")), found.true[chosen], found.said[chosen], found.hit[chosen])
    assert case_metric(found, weights, "dice")[0] == pytest.approx(point_value(copied, "dice"))


def test_a_better_label_wins_and_equal_ones_do_not() -> None:
    runs = [
        Outcome(label, seed, {"test": scores(10 * seed + n, skill), "val": scores(10 * seed + n + 5, skill)})
        for n, (label, skill) in enumerate({"good": 0.85, "same": 0.85, "bad": 0.5}.items())
        for seed in (0, 1, 2)
    ]
    ranking = rank(runs, "dice")
    assert ranking.pair("good", "bad").distinguishable
    assert ranking.pair("same", "bad").distinguishable
    assert not ranking.pair("good", "same").distinguishable
    selection = select(runs, "dice")
    assert selection is not None
    assert selection.label in ("good", "same")


def test_cases_of_one_group_are_drawn_together() -> None:
    """Ten patients of ten slices that agree with each other say less than a hundred independent ones."""

    def error(*, grouped: bool) -> float:
        made = scores(3, 0.7, cases=100, groups=10)
        if not grouped:
            made = MaskScores(made.ids, made.true, made.said, made.hit)
        return rank([Outcome("one", 0, {"test": made})], "dice").row("one").case_se

    assert error(grouped=True) > 2 * error(grouped=False)


def test_runs_whose_dice_is_not_defined_are_left_out_with_a_note() -> None:
    """Where no case has a structure, a run that invents none has no Dice; the comparison of the others stands."""

    def empty(said: int) -> MaskScores:
        nothing = np.zeros((4, 1), dtype=np.int64)
        return MaskScores(np.array(list("abcd")), nothing, nothing + said, nothing)

    runs = [
        Outcome(label, seed, {"test": empty(said), "val": empty(said)})
        for label, said in (("silent", 0), ("other", 3), ("third", 5))
        for seed in (0, 1)
    ]
    ranking = rank(runs, "dice")
    assert {row.label for row in ranking.rows} == {"other", "third"}
    assert ranking.pair("other", "third").difference == 0
    assert "silent, seed 1: dice is defined in no test case, left out of the ranking" in ranking.notes
    selection = select(runs, "dice")
    assert selection is not None
    assert set(selection.candidates) == {"other", "third"}
    assert rank(runs[:2], "dice").rows == ()
    assert select(runs[:2], "dice") is None


def test_few_groups_are_told_and_one_group_is_none() -> None:
    """The variance over four patients is widened by 4 / 3; slices of a single one are drawn by themselves."""
    made = scores(3, 0.7, cases=40, groups=4)
    names = made.groups
    assert names is not None
    assert len(set(names)) == 4
    ranking = rank([Outcome("one", 0, {"test": made})], "dice")
    assert any("of 4 groups only" in note for note in ranking.notes)
    assert ranking.n_groups == 4
    means = np.array([made.dice()[names == name].mean() for name in dict.fromkeys(names)])
    assert ranking.row("one").case_se == pytest.approx(means.std(ddof=1) / np.sqrt(4), rel=0.1)
    alone = dataclasses.replace(made, groups=np.array(["patient"] * 40))
    ranking = rank([Outcome("one", 0, {"test": alone})], "dice")
    assert any("of one group" in note for note in ranking.notes)
    assert ranking.row("one").case_se > 0
