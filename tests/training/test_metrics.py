"""Metrics against scikit-learn, and on splits where something is missing."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from mixlab.training.metrics import split_metrics


def scores(count: int, classes: int, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed).random((count, classes)) + 0.01
    return (draw / draw.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("classes", [2, 5])
def test_classes_agree_with_scikit_learn(classes: int) -> None:
    p = scores(211, classes)
    y = np.random.default_rng(1).integers(0, classes, 211)
    guess = p.argmax(axis=1)
    found = split_metrics(p, y, "classification", 0.5)
    area = reference.roc_auc_score(y, p[:, 1]) if classes == 2 else reference.roc_auc_score(y, p, multi_class="ovr")
    assert found["loss"] == 0.5
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(y, guess))
    assert found["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(y, guess))
    assert found["macro_f1"] == pytest.approx(reference.f1_score(y, guess, average="macro"))
    assert found["auroc"] == pytest.approx(area, abs=1e-6)
    assert found["confusion"] == reference.confusion_matrix(y, guess).tolist()
    assert found["per_class_recall"] == pytest.approx(reference.recall_score(y, guess, average=None))


def test_labels_agree_with_scikit_learn() -> None:
    p = np.random.default_rng(0).random((211, 4)).astype(np.float32)
    y = (np.random.default_rng(1).random((211, 4)) < 0.3).astype(np.float32)
    found = split_metrics(p, y, "multilabel", 0.0)
    guess = p > 0.5
    each = [reference.balanced_accuracy_score(y[:, k], guess[:, k]) for k in range(4)]
    assert found["accuracy"] == pytest.approx((guess == y).mean())
    assert found["balanced_accuracy"] == pytest.approx(np.mean(each))
    assert found["macro_f1"] == pytest.approx(reference.f1_score(y, guess, average="macro"))
    assert found["auroc"] == pytest.approx(reference.roc_auc_score(y, p), abs=1e-6)
    assert found["confusion"] == reference.multilabel_confusion_matrix(y, guess).tolist()


def test_an_absent_class_counts_nowhere() -> None:
    """Without class 2 in truth and prediction, the metrics are those of the other two classes."""
    p = scores(50, 2)
    y = np.random.default_rng(2).integers(0, 2, 50)
    two = split_metrics(p, y, "classification", 0.0)
    three = split_metrics(np.pad(p, ((0, 0), (0, 1))), y, "classification", 0.0)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "auroc"):
        assert three[name] == pytest.approx(two[name])
    assert three["per_class_recall"][2] is None


def test_a_split_of_one_class_has_no_area() -> None:
    found = split_metrics(scores(9, 3), np.zeros(9, dtype=np.int64), "classification", 0.0)
    assert found["auroc"] is None
    empty = split_metrics(np.zeros((5, 2), np.float32), np.zeros((5, 2), np.float32), "multilabel", 0.0)
    assert (empty["auroc"], empty["macro_f1"], empty["balanced_accuracy"]) == (None, 0.0, 0.0)
