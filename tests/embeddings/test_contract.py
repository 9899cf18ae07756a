"""What every patch embedding and position of the registries promises; a new one is tested by existing."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mixlab.embeddings import EMBEDDINGS, POSITIONS
from tests.batch_norms import in_evaluation

NAMES, PLACES = list(EMBEDDINGS), list(POSITIONS)
DIMS = (1, 2, 3)
SIZES = {1: (13,), 2: (13, 10), 3: (7, 5, 9)}
DIM_IN, DIM = 2, 4


def make(name: str, spatial_dims: int = 2) -> Any:
    return in_evaluation(EMBEDDINGS[name](DIM_IN, DIM, spatial_dims=spatial_dims))


def place(name: str, spatial_dims: int = 2) -> Any:
    grid = {"grid_size": SIZES[spatial_dims]} if getattr(POSITIONS[name], "needs_grid", False) else {}
    return POSITIONS[name](DIM, spatial_dims=spatial_dims, **grid)


@pytest.mark.parametrize("spatial_dims", DIMS)
@pytest.mark.parametrize("name", NAMES)
def test_shape_gradients_and_cost(name: str, spatial_dims: int) -> None:
    embed, size = make(name, spatial_dims), SIZES[spatial_dims]
    x = torch.randn(1, DIM_IN, *size, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        y = embed(x)
    assert tuple(y.shape) == (1, DIM, *embed.output_size(size))
    assert len(embed.reduction) == spatial_dims
    cost = embed.cost(size)
    assert counter.get_total_flops() == 2 * cost.macs_computed
    assert cost.macs_needed == cost.macs_dense == cost.macs_computed
    assert cost.parameters == sum(p.numel() for p in embed.parameters())
    assert cost.activations >= DIM * torch.Size(embed.output_size(size)).numel()
    y.square().sum().backward()
    for key, parameter in [("input", x), *embed.named_parameters()]:
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("spatial_dims", DIMS)
@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name: str, spatial_dims: int) -> None:
    size = {1: (6,), 2: (5, 4), 3: (3, 4, 2)}[spatial_dims]
    x = torch.randn(1, DIM_IN, *size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(make(name, spatial_dims).double(), (x,))


@pytest.mark.parametrize("name", NAMES)
def test_reduction_is_the_ratio_of_sizes(name: str) -> None:
    embed = make(name)
    assert embed.output_size((96, 160)) == tuple(n // s for n, s in zip((96, 160), embed.reduction, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_compiles_as_one_graph_and_exports_with_dynamic_size(name: str) -> None:
    embed, x = make(name), torch.randn(2, DIM_IN, *SIZES[2])
    torch.testing.assert_close(torch.compile(embed, backend="aot_eager", fullgraph=True)(x), embed(x))
    sizes = {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    program = torch.export.export(embed, (x,), dynamic_shapes=(sizes,))
    for z in (x, torch.randn(2, DIM_IN, 21, 18)):
        torch.testing.assert_close(program.module()(z), embed(z))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_dtypes(name: str, dtype: torch.dtype) -> None:
    embed, x = make(name), torch.randn(2, DIM_IN, *SIZES[2])
    got = copy.deepcopy(embed).to(dtype)(x.to(dtype))
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), embed(x), atol=0.03 if dtype == torch.bfloat16 else 1e-5, rtol=0.03)


@pytest.mark.parametrize("name", NAMES)
def test_evaluated_then_trained_copied_and_pickled(name: str) -> None:
    embed, x = make(name), torch.randn(2, DIM_IN, *SIZES[2])
    with torch.inference_mode():
        before = embed(x).clone()
    x = x.clone().requires_grad_()
    embed(x).sum().backward()
    for twin in (embed, copy.deepcopy(embed), pickle.loads(pickle.dumps(embed))):
        torch.testing.assert_close(twin(x).detach(), before.clone())
        assert twin.state_dict().keys() == embed.state_dict().keys()


@pytest.mark.parametrize("spatial_dims", DIMS)
@pytest.mark.parametrize("name", PLACES)
def test_positions(name: str, spatial_dims: int) -> None:
    position, size = place(name, spatial_dims), SIZES[spatial_dims]
    x = torch.randn(1, DIM, *size)
    with FlopCounterMode(display=False) as counter:
        added = position(x)
    assert (x + added).shape == x.shape
    cost = position.cost(size)
    assert counter.get_total_flops() == 2 * cost.macs_computed
    assert cost.parameters == sum(p.numel() for p in position.parameters())
    added.sum().backward()
    for key, parameter in position.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", [*NAMES, *PLACES])
def test_documented(name: str) -> None:
    doc = (EMBEDDINGS if name in EMBEDDINGS else POSITIONS)[name].__doc__ or ""
    assert doc.strip().split("\n")[0].endswith(".")
