"""Cost formulas and outputs against the naive loop, which counts every multiply."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mixlab.mixers import MIXERS
from tests.batch_norms import in_evaluation
from tests.mixers.cases import DIM, SMALL, make, windowed
from tests.mixers.naive import NAIVE, Counter
from tests.mixers.test_contract import run


def compare(name: str, spatial_dims: int, **options: Any) -> None:
    if name not in NAIVE:
        pytest.fail(f"expected a naive twin of {name!r}, got none, try adding one to tests/mixers/naive.py")
    size = SMALL[spatial_dims]
    mixer = in_evaluation(make(name, spatial_dims, grid=size, **options).double())
    x = torch.randn(1, DIM, *size, dtype=torch.float64)
    count = Counter()
    y = NAIVE[name](mixer, x[0].numpy(), count)
    torch.testing.assert_close(run(mixer, x)[0].detach(), torch.from_numpy(y))
    cost = mixer.cost(size)
    assert cost.macs_needed == count.macs
    assert cost.other_ops == count.other
    assert cost.activations == count.written
    assert cost.parameters == sum(p.numel() for p in mixer.parameters())


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
@pytest.mark.parametrize("name", list(MIXERS))
def test_cost_is_what_the_naive_loop_counts(name: str, spatial_dims: int) -> None:
    compare(name, spatial_dims)


@pytest.mark.parametrize("name", windowed())
def test_cost_of_wide_and_dilated_windows(name: str) -> None:
    compare(name, 2, kernel_size=(3, 5))
    if "dilation" in MIXERS.options(name):
        compare(name, 2, kernel_size=(3, 3), dilation=(1, 2))


@pytest.mark.parametrize("name", ["conv", "sep_conv", "attention"])
def test_macs_are_half_of_torchs_flops(name: str) -> None:
    mixer, size = make(name, 2), (7, 5)
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        run(mixer, torch.randn(1, DIM, *size))
    assert counter.get_total_flops() == 2 * mixer.cost(size).macs_computed


def test_local_attention_dense_number_is_full_attentions() -> None:
    local, full = make("local_attention", 2).cost((7, 5)), make("attention", 2).cost((7, 5))
    assert local.macs_dense == full.macs_needed
    assert local.macs_needed < local.macs_dense
