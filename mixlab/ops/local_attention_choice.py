"""Which backend and path computes a problem of local attention, and why not the others.

The thresholds of the PyTorch-only paths were measured with ``benchmarks/local_attention.py`` (fp32, one thread, batch
8, head size 16, with backward): dense wins on small grids; bands of rows for wide windows and middling grids; the loop
over offsets otherwise.
"""

from __future__ import annotations

import importlib
import math
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from types import ModuleType

import torch

from mixlab.errors import Quoted, expected, unknown
from mixlab.ops import local_attention_pure as pure
from mixlab.ops.local_attention_problem import WHERE, Problem
from mixlab.ops.neighbours import Ints, Window

BACKENDS = ("auto", "reference", "native", "pure", *pure.PATHS)

DENSE_TOKENS = 196
BANDS_TOKENS = 512
BANDS_WINDOW = 25

# --- The row of the native kernel. NOT MEASURED YET: estimates from a prototype, to be replaced. ---
NATIVE_DENSE_TOKENS = {torch.float32: 49}  # up to here fused dense attention is at least as fast; types not here: never
# ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """What computes a problem.

    Attributes:
        backend: ``native``, ``pure`` or ``reference``.
        path: of the pure backend: ``dense``, ``bands`` or ``shift``; otherwise the backend's name.
        reason: why this one.
        others: why not, by backend or path.
    """

    backend: str
    path: str
    reason: str
    others: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        name = self.backend if self.path == self.backend else f"{self.backend}, {self.path}"
        return "\n".join([f"{name}: {self.reason}", *(f"not {o}: {why}" for o, why in self.others.items())])


def choose(p: Problem, backend: str) -> Choice:
    """Backend and path for a problem.

    Raises:
        UserError: the backend is unknown, or is asked for by name and cannot compute this.
    """
    if backend not in BACKENDS:
        raise unknown(f"{WHERE} backend", backend, BACKENDS)
    if torch.compiler.is_compiling() and backend in ("auto", "pure"):
        return Choice("pure", "shift", "a traced graph keeps its sizes dynamic")
    options = (p.softcap is None, p.needs_lse, p.bias is None, None if p.extra_k is None else p.extra_k.shape)
    key = (backend, p.q.device.type, p.q.dtype, tuple(p.q.shape), p.window, options)
    if key not in _CHOICES:
        _CHOICES[key] = _choose(p, backend)
        while len(_CHOICES) > MAX_CHOICES:
            _CHOICES.popitem(last=False)
    return _CHOICES[key]


MAX_CHOICES = 256
_CHOICES: OrderedDict[Hashable, Choice] = OrderedDict()


def choices_made() -> list[Choice]:
    """Every different choice of this process so far (the latest 256), for records."""
    return list({str(choice): choice for choice in _CHOICES.values()}.values())


def _choose(p: Problem, backend: str) -> Choice:
    if backend == "reference":
        return Choice("reference", "reference", "asked for")
    if backend in pure.PATHS:
        refused(backend, pure.unsupported(backend, p))
        return Choice("pure", backend, "asked for")
    native_not = native_unsupported(p)
    if backend == "native":
        refused(backend, native_not)
        return Choice("native", "native", "asked for")
    others = {"reference": "slow; it is the definition"}
    tokens = math.prod(p.size)
    if backend == "pure":
        others["native"] = "the pure backend was asked for"
    elif native_not is not None:
        others["native"] = native_not
    elif p.q.dtype not in NATIVE_DENSE_TOKENS:
        others["native"] = f"not measured faster for {p.q.dtype}"
    elif tokens <= NATIVE_DENSE_TOKENS[p.q.dtype]:
        others["native"] = f"dense attention is faster up to {NATIVE_DENSE_TOKENS[p.q.dtype]} positions"
    else:
        slower = dict.fromkeys(pure.PATHS, "slower than the native kernel")
        return Choice("native", "native", f"the fastest on {p.q.device.type} for {p.q.dtype}", others | slower)
    path = choose_path(p.size, *p.window)
    why = pure.unsupported(path, p)
    reason = REASONS[path]
    if why is not None:
        others[path] = why
        path, reason = "shift", f"{why}; shifted maps do"
    for other in pure.PATHS:
        if other != path:
            others.setdefault(other, pure.unsupported(other, p) or f"slower at {tokens} positions and this window")
    return Choice("pure", path, reason, others)


REASONS = {
    "dense": "a small grid, or a window that covers it: fused attention over all positions wastes little",
    "bands": "a wide window or a middling grid: bands of rows in fused attention",
    "shift": "a small window on a large grid: shifted maps compute nothing outside the window",
}


def choose_path(size: Sequence[int], kernel: Ints, dilation: Ints, border: str = "clip") -> str:
    """The PyTorch-only path for a grid: ``dense``, ``bands`` or ``shift``."""
    tokens = math.prod(size)
    if tokens <= DENSE_TOKENS or Window(kernel, dilation, border).covers(size):
        return "dense"
    banded = math.prod(kernel) >= BANDS_WINDOW or tokens <= BANDS_TOKENS
    return "bands" if banded and len(size) > 1 and max(dilation) == 1 and border == "clip" else "shift"


def computed_pairs(size: Ints, kernel: Ints, dilation: Ints, border: str = "clip") -> int:
    """(query, key) pairs that the PyTorch-only path multiplies, masked ones included; the same on every machine."""
    tokens = math.prod(size)
    path = choose_path(size, kernel, dilation, border)
    if path == "dense":
        return tokens**2
    if path == "shift":
        return tokens * math.prod(kernel)
    rows, bands = pure.band_layout(size[0])
    return bands * rows * (rows + kernel[0] - 1) * (tokens // size[0]) ** 2


def native() -> ModuleType | None:
    """The module of the native kernel, where it is part of this installation."""
    try:
        return importlib.import_module("mixlab.ops.local_attention_native")
    except ModuleNotFoundError as error:
        if error.name != "mixlab.ops.local_attention_native":
            raise
        return None


def native_unavailable() -> str | None:
    """Why this installation has no native kernel, or None."""
    module = native()
    return "this version has no native kernel" if module is None else module.available()


def native_unsupported(p: Problem) -> str | None:
    """Why the native kernel cannot compute this, or None."""
    if p.q.device.type != "cpu":
        return "it runs on CPUs only"
    reason = native_unavailable()
    if reason is not None:
        return reason
    if p.q.shape[0] == 0:
        return "an empty batch"
    module = native()
    assert module is not None
    return module.supports(p.q, *p.window, p.softcap)


def refused(backend: str, reason: str | None) -> None:
    """Raise the UserError for a backend asked for by name that cannot compute this."""
    if reason is not None:
        raise expected(f"{WHERE} backend", f"a problem for {backend!r}", Quoted(reason), "backend='auto'")
