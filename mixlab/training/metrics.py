"""Metrics of a split, computed once from all its predictions."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

Task = Literal["classification", "multilabel"]


def split_metrics(probabilities: NDArray[np.float32], targets: NDArray[Any], task: Task, loss: float) -> dict[str, Any]:
    """All metrics of a split.

    Args:
        probabilities: ``(N, K)``; softmax over the classes, or one sigmoid a label.
        targets: ``(N,)`` class numbers, or ``(N, K)`` zeros and ones for ``multilabel``.
        task: what the targets mean.
        loss: mean loss over the split.

    Returns:
        ``loss``, ``accuracy`` (micro), ``balanced_accuracy`` (mean recall of the classes that occur; for labels the
        mean of sensitivity and specificity over labels that have both), ``auroc`` (one against the rest, mean over the
        classes that occur and do not fill the split; None when there is none), ``macro_f1`` (mean over the classes
        that occur in targets or predictions; over all labels), ``per_class_recall`` (None for a class that does not
        occur) and ``confusion`` (rows are the truth; ``(K, 2, 2)`` for labels).
    """
    scores = torch.from_numpy(np.ascontiguousarray(probabilities)).float()
    truth = torch.from_numpy(np.ascontiguousarray(targets)).long()
    found = _multilabel(scores, truth) if task == "multilabel" else _multiclass(scores, truth)
    one_hot = truth if task == "multilabel" else torch.nn.functional.one_hot(truth, scores.shape[1])
    return {"loss": loss, **found, "auroc": _auroc(scores, one_hot)}


def _multiclass(scores: torch.Tensor, truth: torch.Tensor) -> dict[str, Any]:
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    confusion = multiclass_confusion_matrix(scores, truth, num_classes=scores.shape[1]).numpy()
    hits, support, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    occurs, used = support > 0, support + predicted > 0
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(support + predicted, 1)
    return {
        "accuracy": float(hits.sum() / support.sum()),
        "balanced_accuracy": float(recall[occurs].mean()),
        "macro_f1": float(f1[used].mean()),
        "per_class_recall": [float(r) if o else None for r, o in zip(recall, occurs, strict=True)],
        "confusion": confusion.tolist(),
    }


def _multilabel(scores: torch.Tensor, truth: torch.Tensor) -> dict[str, Any]:
    from torchmetrics.functional.classification import multilabel_confusion_matrix

    confusion = multilabel_confusion_matrix(scores, truth, num_labels=scores.shape[1]).numpy()  # (K, truth, predicted)
    support = confusion.sum(axis=2)  # (K, 2): negatives, positives
    hits = confusion.diagonal(axis1=1, axis2=2)  # (K, 2): true negatives, true positives
    recall = hits / np.maximum(support, 1)  # (K, 2): specificity, sensitivity
    both = (support > 0).all(axis=1)  # a label of one kind only says nothing of the balance
    wanted = support[:, 1] + confusion[:, :, 1].sum(axis=1)  # positives of the truth and of the prediction
    f1 = 2 * hits[:, 1] / np.maximum(wanted, 1)
    return {
        "accuracy": float(hits.sum() / support.sum()),
        "balanced_accuracy": float(recall[both].mean()) if both.any() else 0.0,
        "macro_f1": float(f1.mean()),  # as torchmetrics and scikit-learn: a label that never occurs counts 0
        "per_class_recall": [float(r) if n else None for r, n in zip(recall[:, 1], support[:, 1], strict=True)],
        "confusion": confusion.tolist(),
    }


def _auroc(scores: torch.Tensor, one_hot: torch.Tensor) -> float | None:
    """Mean over columns of the area under the curve; columns with one kind of target only have none."""
    from torchmetrics.functional.classification import binary_auroc

    areas = [
        float(binary_auroc(scores[:, k], one_hot[:, k]))
        for k in range(scores.shape[1])
        if 0 < int(one_hot[:, k].sum()) < len(one_hot)
    ]
    return float(np.mean(areas)) if areas else None
