"""The 95 % Hausdorff distance of masks, by MONAI."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

PERCENTILE = 95


def hausdorff(said: Tensor, truth: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
    """95 % Hausdorff distance of each structure of a case: of the two directed ones the larger.

    Follows the rule of :mod:`mixlab.training.mask_scores` for empty structures: nan where neither has the structure,
    the diagonal of the field of view where one has.

    Args:
        said: predicted structures ``(K, *spatial)``, bool.
        truth: true ones, likewise.
        spacing: millimetres from pixel to pixel on each axis; None to count pixels.

    Returns:
        ``(K,)`` float32.
    """
    from monai.metrics import compute_hausdorff_distance

    steps = tuple(spacing) if spacing is not None else (1.0,) * (said.ndim - 1)
    diagonal = math.sqrt(sum((n * step) ** 2 for n, step in zip(said.shape[1:], steps, strict=True)))
    in_said, in_truth = said.flatten(1).any(1), truth.flatten(1).any(1)
    found = torch.where(in_said | in_truth, diagonal, math.nan).float()
    both = in_said & in_truth
    if both.any():
        with warnings.catch_warnings():  # MONAI 1.5 warns of an argument that it passes to itself
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"monai\.")
            distances = compute_hausdorff_distance(
                said[both].unsqueeze(0).float(),
                truth[both].unsqueeze(0).float(),
                include_background=True,
                percentile=PERCENTILE,
                spacing=list(steps),
            )
        found[both] = distances[0].float()
    return found
