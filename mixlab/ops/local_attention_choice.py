"""Which backend and path computes a problem of local attention, and why not the others.

The PyTorch-only paths were measured on a CPU with ``benchmarks/local_attention.py --absolute`` (fp32, one thread, with
backward): the time of dense attention and of bands goes with the pairs that they multiply, at about one price; that of
the loop over places likewise, at six times the price. Up to 100 positions the fixed costs of bands and loop decide.
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

DENSE_TOKENS = 100
PRICES = {"dense": 1, "bands": 1, "shift": 6}  # of a pair
SHIFTED_PRICE = 14  # of a pair in the loop over places, where windows are shifted: maps are copied

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
    missing = {path: why for path in pure.PATHS if (why := pure.unsupported(path, p)) is not None}
    path = choose_path(p.size, *p.window, without=tuple(missing))
    for other in pure.PATHS:
        if other != path:
            others[other] = missing.get(other, f"slower at {tokens} positions and this window")
    return Choice("pure", path, REASONS[path], others)


REASONS = {
    "dense": "a small grid, or a window that covers it: fused attention over all positions wastes little",
    "bands": "a window wide for its grid: bands of rows in fused attention",
    "shift": "a window small for its grid: shifted maps compute nothing outside the window",
}


def choose_path(
    size: Sequence[int], kernel: Ints, dilation: Ints, border: str = "clip", without: tuple[str, ...] = ()
) -> str:
    """The PyTorch-only path for a grid: ``dense``, ``bands`` or ``shift``."""
    window = Window(kernel, dilation, border)
    if math.prod(size) <= DENSE_TOKENS or window.covers(size):
        return "dense"
    banded = len(size) > 1 and max(dilation) == 1 and border == "clip"
    possible = [p for p in PRICES if p not in without and (banded or p != "bands")]
    prices = PRICES if border == "clip" else PRICES | {"shift": SHIFTED_PRICE}
    return min(possible, key=lambda path: prices[path] * path_pairs(path, size, kernel))


def path_pairs(path: str, size: Sequence[int], kernel: Ints) -> int:
    """(query, key) pairs that a path multiplies, masked ones included."""
    tokens = math.prod(size)
    if path == "dense":
        return tokens**2
    if path == "shift":
        return tokens * math.prod(kernel)
    rows, bands = pure.band_layout(size[0])
    return bands * rows * (rows + kernel[0] - 1) * (tokens // size[0]) ** 2


def computed_pairs(size: Sequence[int], kernel: Ints, dilation: Ints, border: str = "clip") -> int:
    """Pairs of the PyTorch-only path for a grid; the same on every machine."""
    return path_pairs(choose_path(size, kernel, dilation, border), size, kernel)


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
    return module.supports(p.q)


def refused(backend: str, reason: str | None) -> None:
    """Raise the UserError for a backend asked for by name that cannot compute this."""
    if reason is not None:
        raise expected(f"{WHERE} backend", f"a problem for {backend!r}", Quoted(reason), "backend='auto'")
