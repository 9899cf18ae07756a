"""NATTEN as a backend of local attention. It needs a GPU, so a stand-in with its interface checks the calls."""

from __future__ import annotations

import importlib.metadata
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from mixlab.errors import UserError
from mixlab.ops import local_attention
from mixlab.ops import local_attention_natten as natten
from mixlab.ops.local_attention_problem import Problem, make_problem
from tests.ops.problems import choice


def stand_in(axes: int) -> Any:
    """``na1d``, ``na2d`` or ``na3d`` of NATTEN 0.21, by the definition."""

    def attend(
        query: Tensor, key: Tensor, value: Tensor, kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1, dilation: int | tuple[int, ...] = 1, is_causal: bool = False,
        scale: float | None = None, additional_keys: Tensor | None = None, additional_values: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        assert query.ndim == axes + 3
        assert query.shape == key.shape == value.shape
        assert isinstance(kernel_size, tuple)
        assert isinstance(dilation, tuple)
        assert len(kernel_size) == len(dilation) == axes
        for n, width, step in zip(query.shape[1:-2], kernel_size, dilation, strict=True):
            assert width * step <= n, "NATTEN refuses it"
        extra = None
        if additional_keys is not None and additional_values is not None:
            batch, _, heads, d = additional_keys.shape
            assert (batch, heads, d) == (query.shape[0], *query.shape[-2:])
            extra = (additional_keys.transpose(1, 2), additional_values.transpose(1, 2))
        q, k, v = (t.movedim((-2, -1), (1, 2)) for t in (query, key, value))
        out = local_attention(
            q, k, v, kernel_size, dilation=dilation, border="shift", scale=scale, extra_kv=extra, backend="reference"
        )
        return out.movedim((1, 2), (-2, -1))

    return attend


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    package, functional = ModuleType("natten"), ModuleType("natten.functional")
    for axes, name in natten.FUNCTIONS.items():
        setattr(functional, name, stand_in(axes))
    monkeypatch.setitem(sys.modules, "natten", package)
    monkeypatch.setitem(sys.modules, "natten.functional", functional)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: {"natten": "0.21.7+torch2110cu130"}[name])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def problem(*size: int, extra: int = 0, **changes: Any) -> Problem:
    q, k, v = (torch.randn(2, 3, 8, *size, requires_grad=True) for _ in range(3))
    names = ("bias", "scale", "softcap", "extra_kv", "extra_bias")
    given: dict[str, Any] = dict.fromkeys(names) | {"dilation": 1, "border": "shift", "needs_lse": False}
    if extra:
        given["extra_kv"] = tuple(torch.randn(2, 3, extra, 8, requires_grad=True) for _ in range(2))
    return make_problem(**(given | {"q": q, "k": k, "v": v, "kernel_size": 3} | changes))


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("extra", [0, 2])
@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((11,), {"dilation": 3}),
        ((7, 9), {"kernel_size": (3, 5), "scale": 0.7}),
        ((3, 5, 4), {"kernel_size": (1, 3, 3)}),
    ],
)
def test_calls(size: tuple[int, ...], options: dict[str, Any], extra: int) -> None:
    p = problem(*size, extra=extra, **options)
    assert natten.unavailable() is None
    assert natten.not_its_kind(p) is None
    out, lse = natten.run(p)
    assert lse is None
    given: dict[str, Any] = {"dilation": p.window.dilation, "border": "shift", "scale": p.scale}
    if p.extra_k is not None and p.extra_v is not None:
        given["extra_kv"] = (p.extra_k, p.extra_v)
    want = local_attention(p.q, p.k, p.v, p.window.kernel, **given, backend="reference")
    torch.testing.assert_close(out, want)
    leaves = [t for t in (p.q, p.k, p.v, p.extra_k, p.extra_v) if t is not None]
    seen = torch.randn_like(out)
    for ours, theirs in zip(*(torch.autograd.grad(y, leaves, seen) for y in (out, want)), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.usefixtures("_installed")
def test_not_its_kind() -> None:
    own = tuple(torch.randn(2, 3, 7, 7, 2, 8) for _ in range(2))
    cases: dict[str, dict[str, Any]] = {
        "clipped at the border": {"border": "clip"},
        "a bias": {"bias": torch.zeros(3, 5, 5)},
        "a soft cap": {"softcap": 3.0},
        "extra keys of every query": {"extra_kv": own},
        "the log-sum-exp": {"needs_lse": True},
        "larger than the grid": {"kernel_size": 5, "dilation": 2},
        "multiple of 8": {n: torch.randn(2, 3, 12, 7, 7) for n in "qkv"},
        "float64": {n: torch.randn(2, 3, 8, 7, 7, dtype=torch.float64) for n in "qkv"},
        "scale of zero": {"scale": 0.0},
    }
    for reason, changes in cases.items():
        assert reason in str(natten.not_its_kind(problem(7, 7, **changes)))


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = {"0.17.5": "0.20 or newer, not 0.17.5", "0.20.1": None, "1.0.0": None}
    for version, reason in cases.items():
        monkeypatch.setattr(importlib.metadata, "version", lambda name, version=version: version)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert (natten.unavailable() is None) if reason is None else reason in str(natten.unavailable())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert natten.unavailable() == "there is no CUDA device"


def test_refused_on_a_cpu() -> None:
    q = torch.randn(1, 1, 8, 5, 5)
    with pytest.raises(UserError, match="it runs on CUDA devices only, try backend='auto'"):
        local_attention(q, q, q, 3, border="shift", backend="natten")
    assert choice({"q": q, "k": q, "v": q, "kernel_size": 3}).others["natten"] == "it runs on CUDA devices only"
