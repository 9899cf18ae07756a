"""On a GPU every mixer gives what it gives on the CPU; skipped where there is none."""

from __future__ import annotations

import copy

import pytest
import torch

from mixlab.mixers import MIXERS
from tests.mixers.cases import DIM, PRIMES, make
from tests.mixers.test_contract import run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
@pytest.mark.parametrize("name", list(MIXERS))
def test_same_values_and_gradients_as_on_the_cpu(name: str, spatial_dims: int) -> None:
    mixer = make(name, spatial_dims).double()
    x = torch.randn(2, DIM, *PRIMES[spatial_dims], dtype=torch.float64)
    results = []
    for device in ("cpu", "cuda"):
        twin = copy.deepcopy(mixer).to(device)
        leaf = x.to(device).requires_grad_()
        y = run(twin, leaf)
        y.square().sum().backward()
        assert leaf.grad is not None
        results.append(
            [t.detach().cpu() for t in (y, leaf.grad, *(p.grad for p in twin.parameters() if p.grad is not None))]
        )
    for ours, want in zip(*results, strict=True):
        torch.testing.assert_close(ours, want)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", list(MIXERS))
def test_trains_under_autocast(name: str, dtype: torch.dtype) -> None:
    mixer = make(name, 2).cuda()
    x = torch.randn(2, DIM, 17, 19, device="cuda", requires_grad=True)
    with torch.autocast("cuda", dtype=dtype):
        y = run(mixer, x)
    y.float().square().mean().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    torch.testing.assert_close(y.float(), run(mixer, x), atol=0.03, rtol=0.03)
