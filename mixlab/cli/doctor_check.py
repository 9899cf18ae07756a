"""``mixlab doctor --check``: every usable backend computes small problems, compared with the definition in float64."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import torch
from torch import Tensor

from mixlab.errors import UserError
from mixlab.ops import local_attention
from mixlab.ops.local_attention_choice import backend_status
from mixlab.ops.local_attention_pure import PATHS

#: Largest difference from float64 that float32 may have, relative to the largest entry.
TOLERANCE = 1e-4
SHAPE, KERNEL = (2, 2, 16, 13, 11), 5  # (B, heads, head_dim, height, width)
#: Border, with a bias, with gradients: few backends compute all of them.
PROBLEMS = tuple(product(("clip", "shift"), (False, True), (False, True)))


def check_backends() -> list[dict[str, Any]]:
    """A row for each usable backend (each path of the pure one) and device of this machine that it computes on.

    Rows have ``backend``, ``device``, ``forward`` and ``gradient`` (largest differences; None: not computed),
    ``refused`` (reasons), ``bad`` and ``says``. A backend that refuses some problems, or gradients, says so and is not
    bad; one that computes nothing, or something else than the definition, or fails, is.
    """
    usable = [name for name, reason in backend_status().items() if reason is None]
    found = []
    for backend in [path for name in usable for path in (PATHS if name == "pure" else [name])]:
        rows = [check(backend, device) for device in devices()]
        found += [row for row in rows if row["forward"] is not None or row["bad"]] or [{**rows[0], "bad": True}]
    return found


def devices() -> list[str]:
    """Where tensors can be."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return ["cpu", *(device for device, available in there.items() if available)]


def check(backend: str, device: str) -> dict[str, Any]:
    """One row."""
    worst: dict[str, float] = {}
    refused: dict[str, None] = {}
    failures: list[str] = []
    computed = 0
    for border, bias, gradient in PROBLEMS:
        try:
            found = differences(backend, device, border, bias=bias, gradient=gradient)
        except UserError as error:
            refused[str(error)] = None
        except Exception as error:  # whatever a kernel raises is what is asked for here
            failures.append(f"border {border}: {type(error).__name__}: {error}")
        else:
            computed += 1
            for name, value in found.items():
                worst[name] = max(worst.get(name, 0.0), value)
    says = [f"{name} differs by {value:.1e}" for name, value in worst.items()]
    if any(value > TOLERANCE for value in worst.values()):
        failures.append(f"more than the {TOLERANCE:.0e} that float32 may")
    if refused:
        says.append(
            f"{computed} of {len(PROBLEMS)} problems, the others it refuses" if computed else next(iter(refused))
        )
    return {
        "backend": backend,
        "device": device,
        "forward": worst.get("forward"),
        "gradient": worst.get("gradient"),
        "refused": list(refused),
        "bad": bool(failures),
        "says": "; ".join([*says, *failures]),
    }


def differences(backend: str, device: str, border: str, *, bias: bool, gradient: bool) -> dict[str, float]:
    """Largest differences of output and of gradients, relative to the largest entry."""
    inputs = problem(border, bias=bias)
    want = compute(inputs, "reference", border, gradient=gradient)
    mine = {name: t.float().to(device) for name, t in inputs.items()}
    got = compute(mine, backend, border, gradient=gradient)
    found: dict[str, float] = {}
    for name, expected in want.items():
        difference = ((got[name].double().cpu() - expected).abs().max() / expected.abs().max()).item()
        kind = "forward" if name == "out" else "gradient"
        if not math.isfinite(difference):
            raise FloatingPointError(f"{kind} is not finite")
        found[kind] = max(found.get(kind, 0.0), difference)
    return found


def problem(border: str, *, bias: bool) -> dict[str, Tensor]:
    """Queries, keys, values and perhaps a bias in float64, the same at each call."""
    draw = torch.Generator().manual_seed(0)
    side = KERNEL if border == "clip" else 2 * KERNEL - 1
    shapes: dict[str, tuple[int, ...]] = {"q": SHAPE, "k": SHAPE, "v": SHAPE}
    if bias:
        shapes["bias"] = (SHAPE[1], side, side)
    return {name: torch.randn(shape, generator=draw, dtype=torch.float64) for name, shape in shapes.items()}


def compute(inputs: dict[str, Tensor], backend: str, border: str, *, gradient: bool) -> dict[str, Tensor]:
    """The output, and gradients of the sum of its squares."""
    leaves = {name: t.detach().requires_grad_(gradient) for name, t in inputs.items()}
    q, k, v, bias = leaves["q"], leaves["k"], leaves["v"], leaves.get("bias")
    out = local_attention(q, k, v, KERNEL, border=border, bias=bias, backend=backend)
    if not gradient:
        return {"out": out}
    gradients = torch.autograd.grad(out.square().sum(), list(leaves.values()))
    return {"out": out.detach(), **dict(zip(leaves, gradients, strict=True))}
