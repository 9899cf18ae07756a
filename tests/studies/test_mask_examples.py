"""Which cases of a segmentation run are kept for the report, and which slice of a volume."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mixlab.studies.mask_examples import BEST, SPREAD, WORST, choose_cases, example_masks
from tests.training.toys_masks import MaskCard


def test_worst_and_best_cases_are_kept_beside_those_spread_over_the_split() -> None:
    scores = np.random.default_rng(0).random((100, 2))
    scores[::7, 1] = np.nan
    scores[5] = np.nan
    chosen = choose_cases(scores)
    assert len({index for index, _ in chosen}) == len(chosen) <= SPREAD + WORST + BEST
    means = {i: np.nanmean(row) for i, row in enumerate(scores) if not np.isnan(row).all()}
    order = sorted(means, key=lambda i: means[i])
    spread = {index for index, why in chosen if why == "spread"}
    assert {0, 99} <= spread
    assert {index for index, why in chosen if why == "worst"} == {*order[:WORST]} - spread
    assert {index for index, why in chosen if why == "best"} == {*order[-BEST:]} - spread
    assert choose_cases(np.full((2, 1), np.nan)) == [(0, "spread"), (1, "spread")]


@pytest.mark.parametrize(("background", "fullest"), [(0, 1), (None, 2), (1, 2)])
def test_of_a_volume_the_slice_with_most_of_the_structures(background: int | None, fullest: int) -> None:
    """Of three slices: nothing that counts, two pixels of class 1, three of class 0. Without a background class 0 is a
    structure as well."""
    truth = torch.full((3, 2, 2), 255)
    truth[1, 0] = 1
    truth[2].view(-1)[:3] = 0
    split = [(torch.arange(12.0).reshape(1, 3, 2, 2) / 12, truth, 0)]
    card = MaskCard(spatial_dims=3, background=background, ignore_label=255)
    found = example_masks(split, card, (np.full((3, 2, 2), i, np.uint8) for i in (2,)))
    np.testing.assert_array_equal(found["truth"][0], truth[fullest].numpy())
    assert found["images"].shape == found["said"].shape == (1, 2, 2)
    assert found["images"][0, 0, 0] == round(4 * fullest / 12 * 255)
