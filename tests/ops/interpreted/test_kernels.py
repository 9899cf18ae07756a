"""The Triton kernels of local attention, interpreted on a CPU, against the definition."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mixlab.errors import UserError
from mixlab.ops import local_attention
from mixlab.ops import local_attention_triton as triton
from mixlab.ops.neighbours import Window
from tests.ops.problems import choice, compare, tensors, wide

SIZES: dict[int, list[tuple[int, ...]]] = {1: [(1,), (2,), (23,)], 2: [(1, 1), (7, 5), (3, 11)], 3: [(2, 3, 5)]}


def problem(seed: int, dtype: torch.dtype) -> dict[str, Any]:
    """Every option of the operator, on grids of few tiles: the interpreter is slow."""
    dice, generator = random.Random(seed), torch.Generator().manual_seed(seed)

    def tensor(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    axes = 1 + seed % 3
    size = dice.choice(SIZES[axes])
    batch, heads = dice.choice([(1, 1), (1, 2), (2, 1)])
    d = dice.choice([3, 8, 16, 17])
    kernel = tuple(dice.choice([1, 3, 5]) for _ in size) if axes < 3 else dice.choice([(1, 3, 3), (3, 1, 3)])
    dilation = (1,) * (axes - 1) + (dice.choice([1, 1, 2]),)
    border = ["clip", "shift"][seed // 3 % 2]
    if dice.random() < 0.5:
        maps = [tensor(batch, heads, d, *size) for _ in range(3)]
    else:  # views of one channels-last map
        maps = list(tensor(batch, *size, 3, heads, d).movedim((-3, -2, -1), (0, 2, 3)).unbind(0))
    q, k, v = (t.requires_grad_() for t in maps)
    found: dict[str, Any] = {"q": q, "k": k, "v": v, "kernel_size": kernel, "dilation": dilation, "border": border}
    found |= {"scale": dice.choice([None, 0.3]), "softcap": dice.choice([None, 1.5])}
    if seed % 2:  # biases are parameters, which stay float32 under half inputs
        shape = Window(kernel, dilation, border).bias_shape()
        found["bias"] = tensor(heads, *shape, dtype=wide(dtype)).requires_grad_()
    if dice.random() < 0.6:
        entries, grid = dice.choice([1, 3, 18]), dice.choice([(), size])
        extra = [tensor(batch, heads, *grid, entries, d).requires_grad_() for _ in range(2)]
        found["extra_kv"] = (extra[0], extra[1])
        chosen = dice.choice([None, (entries,), (heads, *size, entries)])
        if chosen is not None:
            found["extra_bias"] = tensor(*chosen, dtype=wide(dtype)).requires_grad_()
    return found


def plain(*size: int, dtype: torch.dtype = torch.float32, factor: float = 1.0, batch: int = 1) -> dict[str, Any]:
    q, k, v = (factor * torch.randn(batch, 1, 16, *size, dtype=dtype) for _ in range(3))
    return {"q": q.requires_grad_(), "k": k.requires_grad_(), "v": v.requires_grad_()}


def everything(arguments: dict[str, Any], backend: str) -> dict[str, Tensor]:
    """Output, log-sum-exp, and gradients of a random but fixed function of both."""
    out, lse = local_attention(**arguments, backend=backend, return_lse=True)
    generator, leaves = torch.Generator().manual_seed(0), tensors(arguments)
    weights = [torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.dtype) for t in (out, lse)]
    gradients = torch.autograd.grad([out, lse], list(leaves.values()), weights)
    found = {f"gradient of {n}": g for n, g in zip(leaves, gradients, strict=True)}
    return {"out": out.detach(), "lse": lse.detach(), **found}


def check(arguments: dict[str, Any]) -> None:
    compare(everything(arguments, "triton"), everything(arguments, "reference"), arguments["q"].dtype)


@pytest.mark.parametrize(
    ("seed", "dtype"),
    [(s, torch.float32) for s in range(12)] + [(s, t) for s in range(6) for t in (torch.bfloat16, torch.float16)],
)
def test_random_problem(seed: int, dtype: torch.dtype) -> None:
    arguments = problem(seed, dtype)
    got = everything(arguments, "triton")
    assert got["out"].dtype == dtype
    assert got["lse"].dtype == torch.float32
    compare(got, everything(arguments, "reference"), dtype)


@pytest.mark.parametrize(
    ("size", "kernel", "options"),
    [
        ((11, 13), 7, {}),  # several tiles, all borders
        ((17, 9), (3, 7), {"border": "shift"}),
        ((5, 7, 6), (1, 3, 3), {}),
        ((5, 6, 7), 3, {"border": "shift"}),
        ((2, 40), 3, {}),  # a tile is one row
        ((3, 40), 3, {"border": "shift"}),
        ((83,), 9, {}),
        ((11, 10), 3, {"dilation": (2, 3)}),
        ((11, 10), 3, {"dilation": (2, 3), "border": "shift"}),
    ],
)
def test_several_tiles(size: tuple[int, ...], kernel: Any, options: dict[str, Any]) -> None:
    check(plain(*size) | {"kernel_size": kernel} | options)


@pytest.mark.parametrize("border", ["clip", "shift"])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (3, 4)])
def test_windows_larger_than_the_grid(size: tuple[int, ...], border: str) -> None:
    check(plain(*size) | {"kernel_size": (5, 11), "border": border})
    check(plain(*size) | {"kernel_size": 3, "dilation": 7, "border": border})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_scores_stay_finite(dtype: torch.dtype) -> None:
    """Scores of about ten thousand, in both directions; biases and extra keys likewise."""
    arguments = plain(9, 7, dtype=dtype, factor=50.0) | {"kernel_size": 5, "scale": 1.0}
    extra = [(50 * torch.randn(1, 1, 3, 16)).to(dtype).requires_grad_() for _ in range(2)]
    more = {"bias": (1e4 * torch.randn(1, 5, 5)).requires_grad_(), "extra_kv": (extra[0], extra[1])}
    for given in (arguments, arguments | more):
        got, want = everything(given, "triton"), everything(given, "reference")
        for name, result in got.items():
            assert result.isfinite().all(), name
        torch.testing.assert_close(got["out"], want["out"], rtol=2e-2, atol=1.0)  # of values of fifty


def test_gradients_of_scores_beyond_float16() -> None:
    """They are products with values of thousands; what is asked for is not large."""
    arguments = plain(5, 5, dtype=torch.float16) | {"kernel_size": 3}
    arguments["v"] = (6e4 * torch.rand(1, 1, 16, 5, 5) - 3e4).half().requires_grad_()
    arguments["k"] = (1e-3 * torch.randn(1, 1, 16, 5, 5)).half().requires_grad_()
    arguments["q"] = (1e-3 * torch.randn(1, 1, 16, 5, 5)).half().requires_grad_()
    seen = torch.full((1, 1, 16, 5, 5), 4.0, dtype=torch.float16)
    leaves = [arguments[n] for n in "qk"]
    got, want = (
        torch.autograd.grad(local_attention(**arguments, backend=b), leaves, seen) for b in ("triton", "reference")
    )
    for ours, theirs in zip(got, want, strict=True):
        assert ours.isfinite().all()
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2 * float(theirs.abs().max()))


def test_results_repeat_bit_for_bit() -> None:
    arguments = problem(7, torch.float32)
    first, second = everything(arguments, "triton"), everything(arguments, "triton")
    assert all(torch.equal(first[n], second[n]) for n in first)


def test_layout_is_kept() -> None:
    """No permute between a linear layer's map and the kernel, nor after it."""
    q, k, v = torch.randn(2, 5, 4, 3, 2, 8, requires_grad=True).movedim((-3, -2, -1), (0, 2, 3)).unbind(0)
    out = local_attention(q, k, v, 3, backend="triton")
    gradients = torch.autograd.grad(out.sum(), [q, k, v])
    for t in (out, *gradients):
        assert t.flatten(1, 2).is_contiguous(memory_format=torch.channels_last)


def test_tiles() -> None:
    assert triton.tile_shape((1, 56, 56), (1, 7, 7), (1, 1, 1)) == (1, 4, 8)
    assert triton.tile_shape((1, 1, 100), (1, 1, 3), (1, 1, 1)) == (1, 1, 32)
    assert triton.tile_shape((16, 16, 16), (3, 3, 3), (1, 1, 1)) == (2, 2, 8)
    assert triton.tile_shape((16, 16, 16), (1, 3, 3), (1, 1, 1)) == (1, 2, 16)
    assert triton.tile_shape((1, 9, 9), (1, 3, 3), (1, 3, 3)) == (1, 4, 4)  # nine grids of 3x3


def test_choice_and_refusals() -> None:
    arguments = plain(4, 5) | {"kernel_size": 3}
    assert choice(arguments, "triton").backend == "triton"
    assert choice(arguments).others["triton"] == "its interpreter is for tests"
    for message, change in {
        "an empty batch": plain(4, 5, batch=0),
        "float64": plain(4, 5, dtype=torch.float64),
        "head sizes up to 64, not 65": {n: torch.zeros(1, 1, 65, 2, 2) for n in "qkv"},
    }.items():
        with pytest.raises(UserError, match=message):
            local_attention(**(arguments | change), backend="triton")


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # opcheck looks at tensors that are not leaves
def test_operators() -> None:
    q, k, v = (torch.randn(1, 1, 4, 3, 4, requires_grad=True) for _ in range(3))
    extra, bias = torch.randn(1, 1, 1, 4, requires_grad=True), torch.randn(1, 3, 3, requires_grad=True)
    arguments = (q, k, v, [3, 3], [1, 1], False, 0.5, None, bias, extra, extra, None)
    torch.library.opcheck(
        triton._attend, arguments, test_utils=("test_schema", "test_faketensor", "test_autograd_registration")
    )


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return local_attention(q, k, v, 3, backend="triton")


def test_compile() -> None:
    torch._dynamo.reset()
    compiled: Callable[..., Tensor] = torch.compile(attend, backend="aot_eager", fullgraph=True)
    for size in ((5, 6), (4, 7)):
        q, k, v = (torch.randn(1, 1, 4, *size, requires_grad=True) for _ in range(3))
        got, want = compiled(q, k, v), attend(q, k, v)
        assert torch.equal(got, want)
        gradients = [torch.autograd.grad(y.square().sum(), [q, k, v]) for y in (got, want)]
        assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


class _Module(torch.nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, k, v)


def test_export_with_dynamic_sizes() -> None:
    height, width = (torch.export.Dim(n, min=2, max=64) for n in ("height", "width"))
    q, k, v = (torch.randn(1, 1, 4, 8, 10) for _ in range(3))
    program = torch.export.export(_Module(), (q, k, v), dynamic_shapes=({3: height, 4: width},) * 3)
    q, k, v = (torch.randn(1, 1, 4, 6, 9) for _ in range(3))
    assert torch.equal(program.module()(q, k, v), attend(q, k, v))
