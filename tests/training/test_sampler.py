from __future__ import annotations

import numpy as np
import pytest
import torch

from mixlab.training.determinism import SeededSplit, derive_seed, reseed
from mixlab.training.loaders import eval_loader, train_loader
from mixlab.training.machine import Machine
from mixlab.training.recipe import Recipe
from mixlab.training.sampler import EpochSampler, balancing_weights
from tests.training.toys import ToyCard, ToySplit


def indices(sampler: EpochSampler) -> list[int]:
    return [index for batch in sampler for _, index in batch]


def test_order_is_a_function_of_seed_and_epoch() -> None:
    one, two = EpochSampler(20, 6, seed=3), EpochSampler(20, 6, seed=3)
    first = indices(one)
    assert sorted(first) == list(range(20))
    one.set_epoch(4)
    two.set_epoch(4)
    assert indices(one) == indices(two) != first
    assert indices(EpochSampler(20, 6, seed=3, epoch=4)) == indices(two)
    assert indices(EpochSampler(20, 6, seed=2)) != first


@pytest.mark.parametrize(("count", "batches", "used"), [(20, 4, 20), (19, 3, 18), (18, 3, 18), (1, 1, 1), (4, 1, 4)])
def test_only_a_last_batch_of_one_image_is_left_out(count: int, batches: int, used: int) -> None:
    sampler = EpochSampler(count, 6, seed=0)
    found = list(sampler)
    assert len(found) == len(sampler) == batches
    assert sum(map(len, found)) == used


def test_balanced_sampling_draws_classes_equally_often() -> None:
    targets = np.array([0] * 900 + [1] * 90 + [2] * 10)
    sampler = EpochSampler(1000, 50, seed=0, weights=balancing_weights(targets))
    counts = np.bincount(targets[indices(sampler)], minlength=3)
    assert counts.min() > 270  # 333 expected, standard deviation 15
    assert counts.max() < 400


def test_streams_of_random_numbers_differ() -> None:
    assert len({derive_seed(0, a, b) for a in range(4) for b in range(50)}) == 200
    assert derive_seed(0, 1, 2) != derive_seed(0, 2, 1) != derive_seed(1, 2, 1)
    reseed(1, 2)
    first = torch.rand(3)
    reseed(1, 2)
    assert torch.equal(torch.rand(3), first)


def test_reading_an_image_draws_the_same_numbers_whatever_was_read_before() -> None:
    split = SeededSplit(ToySplit(10, noisy=True), seed=1)
    image = split[(2, 3)][0]
    _ = split[(2, 4)]
    assert torch.equal(split[(2, 3)][0], image)
    assert not torch.equal(split[(3, 3)][0], image)


def test_loaders_give_all_validation_images() -> None:
    split = ToySplit(33)
    assert [len(images) for images, _, _ in eval_loader(split, Recipe(batch_size=16), Machine())] == [16, 16, 1]
    seen = torch.cat(
        [index for _, _, index in train_loader(split, ToyCard(), Recipe(batch_size=10), Machine(), seed=0)]
    )
    assert sorted(seen.tolist()) == list(range(33))
