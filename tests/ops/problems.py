"""Random problems of local attention, and one call of it with all results and gradients."""

from __future__ import annotations

import math
import random
from typing import Any

import torch
from torch import Tensor

from mixlab.ops import local_attention
from mixlab.ops.local_attention import Choice
from mixlab.ops.local_attention_choice import choose
from mixlab.ops.local_attention_problem import make_problem
from mixlab.ops.neighbours import Window

SIZES: dict[int, list[tuple[int, ...]]] = {
    1: [(1,), (2,), (11,), (23,)],
    2: [(1, 1), (1, 9), (7, 5), (6, 8), (13, 11)],
    3: [(1, 2, 3), (4, 3, 5)],
}
TOLERANCES = {
    torch.float64: (1e-9, 1e-9), torch.float32: (2e-5, 2e-4), torch.bfloat16: (2e-2, 2e-2), torch.float16: (4e-3, 4e-3),
}  # fmt: skip


def random_problem(seed: int, dtype: torch.dtype, *, plain: bool = False) -> dict[str, Any]:
    """Arguments of :func:`local_attention`; only sizes, window and scale vary when ``plain``."""
    dice = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)

    def tensor(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    axes = dice.choice([1, 2, 2, 3])
    size: tuple[int, ...] = dice.choice(SIZES[axes])
    batch, heads, d = dice.choice([1, 2, 3]), dice.choice([1, 2, 3]), dice.choice([1, 3, 8, 16])
    kernel = tuple(dice.choice([1, 3, 5, 7] if axes < 3 else [1, 3, 5]) for _ in size)
    dilation = tuple(dice.choice([1, 1, 2, 3]) for _ in size)
    border = dice.choice(["clip", "clip", "shift"])
    q, k, v = (tensor(batch, heads, d, *size) for _ in range(3))
    problem: dict[str, Any] = {"q": q, "k": k, "v": v, "kernel_size": kernel, "scale": dice.choice([None, 0.3])}
    if plain:
        return problem
    problem |= {"dilation": dilation, "border": border, "softcap": dice.choice([None, None, 1.5])}
    if dice.random() < 0.5:  # biases are parameters, which stay float32 under half inputs
        problem["bias"] = tensor(heads, *Window(kernel, dilation, border).bias_shape(), dtype=wide(dtype))
    if dice.random() < 0.6:
        entries, grid = dice.choice([1, 2, 5]), dice.choice([(), size])
        problem["extra_kv"] = (tensor(batch, heads, *grid, entries, d), tensor(batch, heads, *grid, entries, d))
        shapes = [None, (entries,), (heads, *size, entries), (batch, 1, *(1 for _ in size), entries)]
        shape = dice.choice(shapes)
        if shape is not None:
            problem["extra_bias"] = tensor(*shape, dtype=wide(dtype))
    return problem


def wide(dtype: torch.dtype) -> torch.dtype:
    """At least float32."""
    return torch.promote_types(dtype, torch.float32)


def tensors(problem: dict[str, Any]) -> dict[str, Tensor]:
    """All tensors of a problem by name."""
    named = {n: t for n, t in problem.items() if isinstance(t, Tensor)}
    if problem.get("extra_kv") is not None:
        named |= dict(zip(("extra_k", "extra_v"), problem["extra_kv"], strict=True))
    return named


def results(problem: dict[str, Any], backend: str, *, lse: bool = True) -> dict[str, Tensor]:
    """Output, log-sum-exp and gradients, of a random but fixed function of the output."""
    returned = local_attention(**problem, backend=backend, return_lse=lse)
    out, logs = returned if lse else (returned, None)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
    leaves = tensors(problem)
    gradients = torch.autograd.grad(out, list(leaves.values()), weights)
    found = {"out": out.detach(), **{f"gradient of {n}": g for n, g in zip(leaves, gradients, strict=True)}}
    return found if logs is None else found | {"lse": logs.detach()}


def choice(problem: dict[str, Any], backend: str = "auto", *, lse: bool = False) -> Choice:
    """What would compute a problem."""
    given: dict[str, Any] = dict.fromkeys(("bias", "scale", "softcap", "extra_kv", "extra_bias")) | {
        "dilation": 1,
        "border": "clip",
    }
    return choose(make_problem(**(given | problem), needs_lse=lse), backend)


def compare(got: dict[str, Tensor], want: dict[str, Tensor], dtype: torch.dtype) -> None:
    """Every result within the type's tolerance of the largest entry."""
    absolute, relative = TOLERANCES[dtype]
    for name, expected in want.items():
        largest = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
        # A bias's gradient sums over all positions, so its error grows with their number.
        terms = math.sqrt(want["out"][0, 0, 0].numel()) if "bias" in name else 1.0
        difference = (got[name].double() - expected.double()).abs()
        assert (difference <= absolute * largest * terms + relative * expected.double().abs()).all(), (
            f"{name} differs by {difference.max().item():.2g}"
        )
