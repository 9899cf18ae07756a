"""The ranking: its metrics, its calibration on studies without any difference, and what it says of odd studies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from mixlab.errors import UserError
from mixlab.studies.case_metrics import METRICS, Predictions, case_metric, point_value
from mixlab.studies.comparisons import critical_value, letter_groups, mean_variance, p_value
from mixlab.studies.statistics import NOT_DISTINGUISHABLE, Outcome, Pair, rank, select

CLASSES = 4


def draw_study(
    rng: np.random.Generator,
    *,
    labels: int = 6,
    seeds: int = 2,
    cases: int = 160,
    seed_sd: float | Sequence[float] = 0.3,
    skill: Sequence[float] | None = None,
    ease: Any = None,
    split: str = "test",
) -> list[Outcome]:
    """Runs whose chance to be right on a case depends on the case, on the label's skill and on the training's luck."""
    truth = np.arange(cases) % CLASSES
    ids = np.array([f"case{i:04d}" for i in range(cases)])
    ease = rng.normal(1.2, 1.3, cases) if ease is None else ease
    runs = []
    for a in range(labels):
        sd = seed_sd if isinstance(seed_sd, float) else seed_sd[a]
        for seed in range(seeds):
            level = ease + (skill[a] if skill is not None else 0.0) + rng.normal(0, sd)
            right = rng.random(cases) < 1 / (1 + np.exp(-level))
            said = np.where(right, truth, (truth + rng.integers(1, CLASSES, cases)) % CLASSES)
            runs.append(Outcome(f"m{a}", seed, {split: Predictions(ids, truth, np.eye(CLASSES)[said])}))
    return runs


def any_winner(runs: list[Outcome]) -> bool:
    return any(pair.distinguishable for pair in rank(runs, resamples=150).pairs)


def winner(pair: Pair) -> str | None:
    if not pair.distinguishable:
        return None
    return pair.a if pair.verdict == "a better" else pair.b


# Calibration


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("seed_sd", [0.1, 0.3])
def test_null_study_finds_a_winner_in_at_most_five_percent(seeds: int, seed_sd: float) -> None:
    rng = np.random.default_rng(100 * seeds + int(10 * seed_sd))
    studies = 300
    false = sum(any_winner(draw_study(rng, seeds=seeds, seed_sd=seed_sd)) for _ in range(studies))
    # 5 % of 300 is 15; 22 is what a true rate of 5 % exceeds with a probability of 3 %.
    assert false <= 22


@pytest.mark.slow
def test_two_labels_with_two_seeds_are_calibrated_too() -> None:
    """One degree of freedom: where Satterthwaite's approximation finds winners in 10 % of the studies."""
    rng = np.random.default_rng(5)
    assert sum(any_winner(draw_study(rng, labels=2, cases=100)) for _ in range(300)) <= 22


@pytest.mark.slow
def test_one_noisy_label_does_not_break_the_pooled_variance() -> None:
    rng = np.random.default_rng(6)
    spread = [0.6, 0.2, 0.2, 0.2, 0.2, 0.2]
    assert sum(any_winner(draw_study(rng, seed_sd=spread)) for _ in range(200)) <= 20


@pytest.mark.slow
def test_other_base_seeds_never_order_a_pair_the_opposite_way() -> None:
    rng = np.random.default_rng(7)
    for _ in range(60):
        ease = rng.normal(1.2, 1.3, 160)  # the same test cases, trained again
        first, second = (rank(draw_study(rng, ease=ease), resamples=150) for _ in range(2))
        for pair in first.pairs:
            assert len({winner(pair), winner(second.pair(pair.a, pair.b))} - {None}) <= 1


@pytest.mark.parametrize("seeds", [2, 3])
def test_large_difference_is_found(seeds: int) -> None:
    rng = np.random.default_rng(8)
    found = 0
    for _ in range(20):
        ranking = rank(draw_study(rng, seeds=seeds, cases=400, seed_sd=0.1, skill=[-3.0, 0, 0, 0, 0, 0]), resamples=150)
        found += ranking.rows[-1].label == "m0" and ranking.rows[-1].best_rank == 6
    assert found >= 18


def test_one_seed_speaks_of_test_cases_only() -> None:
    rng = np.random.default_rng(9)
    ranking = rank(draw_study(rng, labels=3, seeds=1, cases=400, skill=[-2.0, 0.0, 0.0]))
    assert ranking.test_cases_only
    assert any("test cases" in note for note in ranking.notes)
    assert ranking.row("m0").worst_rank == 3
    assert ranking.row("m0").sd is None
    assert all(pair.training_se is None for pair in ranking.pairs)
    assert sum(any_winner(draw_study(rng, seeds=1, seed_sd=0.0)) for _ in range(100)) <= 10


# What a ranking says


def test_ranking_is_deterministic_and_independent_of_the_order_of_runs() -> None:
    runs = draw_study(np.random.default_rng(10))
    assert rank(runs) == rank(runs[::-1])
    assert rank(runs) != rank(runs, random_state=1)


def test_intervals_agree_with_verdicts_and_letters() -> None:
    rng = np.random.default_rng(11)
    ranking = rank(draw_study(rng, seeds=3, cases=500, seed_sd=0.1, skill=[-2, -1.5, -0.5, 0, 0, 0.2]))
    verdicts = set()
    for pair in ranking.pairs:
        verdicts.add(pair.verdict)
        assert pair.distinguishable == (pair.low > 0 or pair.high < 0) == (pair.p_adjusted < 0.05)
        assert pair.p <= pair.p_adjusted + 1e-9
        shared = set(ranking.row(pair.a).group) & set(ranking.row(pair.b).group)
        assert pair.distinguishable == (not shared)
        assert pair.distinguishable == (pair.b in ranking.row(pair.a).distinguishable_from)
    assert verdicts >= {"a better", NOT_DISTINGUISHABLE}
    assert ranking.leaders[0] == ranking.rows[0].label
    assert [row.mean for row in ranking.rows] == sorted((row.mean for row in ranking.rows), reverse=True)


def test_identical_predictions_are_not_distinguishable() -> None:
    runs = draw_study(np.random.default_rng(12), labels=1)
    copies = [Outcome(name, run.seed, run.splits) for name in ("a", "b") for run in runs]
    pair = rank(copies).pairs[0]
    assert pair.verdict == NOT_DISTINGUISHABLE
    assert pair.difference == 0
    assert pair.p_adjusted == 1


def test_training_and_test_case_spread_are_told_apart() -> None:
    rng = np.random.default_rng(13)
    calm = rank(draw_study(rng, labels=4, seeds=8, cases=300, seed_sd=0.0))
    lucky = rank(draw_study(rng, labels=4, seeds=8, cases=300, seed_sd=0.8))
    quiet, loud = (np.mean([(row.training_sd or 0) ** 2 for row in ranking.rows]) for ranking in (calm, lucky))
    assert quiet < 0.03**2
    assert loud > 0.06**2
    few, many = (rank(draw_study(rng, labels=2, cases=n, seed_sd=0.0)).rows[0].case_se for n in (100, 1600))
    assert 2.5 < few / many < 6


def test_missing_seeds_are_compared_over_what_pairs_share() -> None:
    runs = [r for r in draw_study(np.random.default_rng(14), labels=3, seeds=3) if (r.label, r.seed) != ("m1", 2)]
    ranking = rank(runs)
    assert ranking.pair("m0", "m1").n == 2
    assert ranking.pair("m0", "m2").n == 3
    assert any("pairs are compared over what they share" in note for note in ranking.notes)


def test_labels_without_a_common_seed_are_not_compared() -> None:
    runs = draw_study(np.random.default_rng(15), labels=2, seeds=2)
    ranking = rank([r for r in runs if (r.label, r.seed) in (("m0", 0), ("m1", 1))])
    assert ranking.pairs[0].n == 0
    assert ranking.pairs[0].verdict == NOT_DISTINGUISHABLE
    assert any("not compared" in note for note in ranking.notes)


def test_one_label_trained_twice_lends_its_spread_to_the_others() -> None:
    runs = [r for r in draw_study(np.random.default_rng(16), labels=2, seeds=2) if (r.label, r.seed) != ("m1", 1)]
    ranking = rank(runs)
    assert not ranking.test_cases_only
    assert ranking.seed_df == 1
    assert ranking.pairs[0].training_se is not None


def test_disjoint_folds_widen_the_training_variance() -> None:
    whole = draw_study(np.random.default_rng(17), labels=3, seeds=4)

    def as_folds(disjoint: bool) -> list[Outcome]:
        folds = []
        for run in whole:
            p = run.splits["test"]
            assert isinstance(p, Predictions)
            ids = np.array([f"{i}-{run.seed}" for i in p.ids]) if disjoint else p.ids
            folds.append(Outcome(run.label, 0, {"test": Predictions(ids, p.targets, p.probabilities)}, fold=run.seed))
        return folds

    same, disjoint = rank(as_folds(False)), rank(as_folds(True))
    assert disjoint.n_folds == 4
    assert disjoint.n_cases == 4 * same.n_cases
    assert any("Nadeau" in note for note in disjoint.notes)
    assert not any("Nadeau" in note for note in same.notes)


def test_runs_that_cannot_be_compared_are_left_out_with_a_note() -> None:
    runs = draw_study(np.random.default_rng(18), labels=2)
    p = runs[-1].splits["test"]
    assert isinstance(p, Predictions)
    other = Outcome("m9", 0, {"test": Predictions(p.ids, (p.targets.astype(int) + 1) % CLASSES, p.probabilities)})
    ranking = rank([*runs, other, Outcome("m8", 0, {})])
    assert sorted(row.label for row in ranking.rows) == ["m0", "m1"]
    assert any("m8" in note and "no test predictions" in note for note in ranking.notes)
    assert any("m9" in note and "truth differs" in note for note in ranking.notes)
    assert any("more than one run" in note for note in rank([*runs, runs[0]]).notes)


def test_empty_and_single() -> None:
    assert rank([]).rows == ()
    assert rank([]).leaders == ()
    ranking = rank(draw_study(np.random.default_rng(19), labels=1))
    assert len(ranking.rows) == 1
    assert not ranking.pairs
    assert not ranking.rows[0].tied


@pytest.mark.parametrize(("options", "words"), [({"metric": "f1"}, "macro_f1"), ({"alpha": 5.0}, "probability")])
def test_wrong_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        rank([], **options)


# Selection


def test_selection_looks_at_validation_only() -> None:
    rng = np.random.default_rng(20)
    val = draw_study(rng, labels=2, cases=300, skill=[-2.0, 1.0], split="val")
    test = draw_study(rng, labels=2, cases=300, skill=[1.0, -2.0], split="test")
    runs = [Outcome(v.label, v.seed, v.splits | t.splits) for v, t in zip(val, test, strict=True)]
    chosen = select(runs)
    assert chosen is not None
    assert chosen.label == "m1"
    assert rank(runs).rows[0].label == "m0"
    assert chosen.test == pytest.approx(rank(runs).row("m1").mean)
    assert chosen.test_sd == pytest.approx(rank(runs).row("m1").sd)


def test_selection_prefers_no_label_for_its_missing_seeds() -> None:
    runs = draw_study(np.random.default_rng(21), labels=2, seeds=2, skill=[1.0, 0.0], split="val")
    chosen = select([run for run in runs if (run.label, run.seed) != ("m0", 1)])
    assert chosen is not None
    assert chosen.label == "m1"
    assert chosen.test is None
    assert select([]) is None


# Metrics


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("metric", METRICS)
def test_metrics_equal_scikit_learn(metric: str, multilabel: bool) -> None:
    from sklearn import metrics

    rng = np.random.default_rng(22)
    probabilities = np.round(rng.dirichlet(np.ones(5), 200), 2)  # rounded: ties for the AUROC
    truth = (rng.random((200, 5)) < 0.4).astype(int) if multilabel else np.arange(200) % 5
    said = (probabilities >= 0.5).astype(int) if multilabel else probabilities.argmax(axis=1)
    ids = np.array([str(i) for i in range(200)])
    found = point_value(Predictions(ids, truth, probabilities), metric)
    if metric == "macro_f1":
        expected = metrics.f1_score(truth, said, average="macro")
    elif metric == "auroc":
        one_hot = truth if multilabel else np.eye(5)[truth]
        expected = np.mean([metrics.roc_auc_score(one_hot[:, k], probabilities[:, k]) for k in range(5)])
    elif metric == "accuracy":
        expected = (truth == said).mean()
    elif multilabel:
        expected = np.mean([metrics.balanced_accuracy_score(truth[:, k], said[:, k]) for k in range(5)])
    else:
        expected = metrics.balanced_accuracy_score(truth, said)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("metric", METRICS)
def test_weights_are_repetitions(metric: str) -> None:
    rng = np.random.default_rng(23)
    truth, probabilities = np.arange(40) % 4, rng.dirichlet(np.ones(4), 40)
    weights = rng.integers(0, 4, 40)
    ids = np.array([str(i) for i in range(40)])
    weighted = case_metric(Predictions(ids, truth, probabilities), weights[None].astype(float), metric)[0]
    again = np.repeat(np.arange(40), weights)
    repeated = Predictions(np.arange(len(again)).astype(str), truth[again], probabilities[again])
    assert weighted == pytest.approx(point_value(repeated, metric))


def test_class_that_never_occurs_does_not_count() -> None:
    ids, truth = np.array(["a", "b"]), np.array([0, 1])
    perfect = Predictions(ids, truth, np.eye(3)[truth])
    assert [point_value(perfect, metric) for metric in METRICS] == [1.0] * len(METRICS)


# Arithmetic


@pytest.mark.parametrize(("labels", "df"), [(2, 1), (2, 7), (6, 5), (9, 16)])
def test_critical_values_are_tukeys(labels: int, df: int) -> None:
    from scipy.stats import studentized_range

    expected = studentized_range.ppf(0.95, labels, df) / np.sqrt(2)
    assert critical_value(0.05, labels, 1.0, df) == pytest.approx(expected, rel=2e-3)
    assert p_value(float(expected), labels, 1.0, df) == pytest.approx(0.05, rel=1e-2)
    certain = critical_value(0.05, labels, 0.0, df)
    half = critical_value(0.05, labels, 0.5, df)
    assert half == pytest.approx((certain + expected) / 2, rel=2e-3)


def test_variance_counts_the_test_cases_once() -> None:
    block = np.array([[4.0, 1.0], [1.0, 4.0]])  # 3 of each run's own, 1 shared by both
    exact = mean_variance(3.0 + 2.0, block, 0.5)  # seen over trainings: 2 of training, 3 of the cases
    assert exact.cases == pytest.approx(2.5)
    assert exact.training == pytest.approx(1.0)
    assert mean_variance(1.0, block, 0.5).total == pytest.approx(2.5)
    assert mean_variance(None, block[:1, :1], 1.0).training is None


def test_letters_are_shared_exactly_by_what_does_not_differ() -> None:
    rng = np.random.default_rng(24)
    for _ in range(200):
        names = [f"n{i}" for i in range(rng.integers(1, 8))]
        pairs = [frozenset((a, b)) for i, a in enumerate(names) for b in names[:i]]
        differ = {pair for pair in pairs if rng.random() < 0.4}
        letters = letter_groups(names, differ)
        assert letters[names[0]].startswith("a")
        for pair in pairs:
            a, b = pair
            assert (pair in differ) == (not set(letters[a]) & set(letters[b]))
