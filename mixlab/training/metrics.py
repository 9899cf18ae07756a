"""Metrics of a split, computed once from all its predictions."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

Task = Literal["classification", "multilabel"]


def split_metrics(
    probabilities: NDArray[np.float32], targets: NDArray[Any], task: Task, loss: float
) -> dict[str, Any]:
    """All metrics of a split.

    Args:
        probabilities: ``(N, K)``; softmax over the classes, or one sigmoid a label.
        targets: ``(N,)`` class numbers, or ``(N, K)`` zeros and ones for ``multilabel``.
        task: what the targets mean.
        loss: mean loss over the split.

    Returns:
        ``loss``, ``accuracy`` (micro), ``balanced_accuracy`` (mean recall of the classes that occur; for labels the
        mean over labels of the mean of sensitivity and specificity), ``auroc`` (one against the rest, mean over the
        classes that occur and do not fill the split; None when there is none), ``macro_f1`` (mean over the classes
        that occur in targets or predictions), ``per_class_recall`` (None for a class that does not occur) and
        ``confusion`` (rows are the truth; ``(K, 2, 2)`` for labels).
    """
    scores = torch.from_numpy(np.ascontiguousarray(probabilities)).float()
    truth = torch.from_numpy(np.ascontiguousarray(targets)).long()
    found = _multilabel(scores, truth) if task == "multilabel" else _multiclass(scores, truth)
    one_hot = truth if task == "multilabel" else torch.nn.functional.one_hot(truth, scores.shape[1])
    return {"loss": loss, **found, "auroc": _auroc(scores, one_hot)}


def _multiclass(scores: torch.Tensor, truth: torch.Tensor) -> dict[str, Any]:
    from torchmetrics.functional.classification import (
        multiclass_accuracy,
        multiclass_confusion_matrix,
        multiclass_f1_score,
        multiclass_recall,
    )

    classes = scores.shape[1]
    recall = multiclass_recall(scores, truth, num_classes=classes, average=None)
    occurs = torch.bincount(truth, minlength=classes) > 0
    return {
        "accuracy": float(multiclass_accuracy(scores, truth, num_classes=classes, average="micro")),
        "balanced_accuracy": float(recall[occurs].mean()),
        "macro_f1": float(multiclass_f1_score(scores, truth, num_classes=classes, average="macro")),
        "per_class_recall": [float(r) if o else None for r, o in zip(recall, occurs, strict=True)],
        "confusion": multiclass_confusion_matrix(scores, truth, num_classes=classes).tolist(),
    }


def _multilabel(scores: torch.Tensor, truth: torch.Tensor) -> dict[str, Any]:
    from torchmetrics.functional.classification import (
        multilabel_accuracy,
        multilabel_confusion_matrix,
        multilabel_f1_score,
    )

    labels = scores.shape[1]
    confusion = multilabel_confusion_matrix(scores, truth, num_labels=labels)
    support = confusion.sum(dim=2).float()  # (K, 2): negatives, positives
    recall = confusion.diagonal(dim1=1, dim2=2) / support.clamp(min=1)  # (K, 2): specificity, sensitivity
    balanced = [recall[k][support[k] > 0].mean() for k in range(labels)]
    return {
        "accuracy": float(multilabel_accuracy(scores, truth, num_labels=labels, average="micro")),
        "balanced_accuracy": float(torch.stack(balanced).mean()),
        "macro_f1": float(multilabel_f1_score(scores, truth, num_labels=labels, average="macro")),
        "per_class_recall": [float(recall[k, 1]) if support[k, 1] > 0 else None for k in range(labels)],
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
