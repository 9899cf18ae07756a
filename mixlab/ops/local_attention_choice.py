"""Which backend and path computes a problem of local attention, and why not the others.

Measured on a CPU with ``benchmarks/local_attention_paths.py --absolute`` (one thread, with backward). The native kernel
is the fastest but for the windows named below. Among the PyTorch-only paths, the time of dense attention and of bands
goes with the pairs that they multiply, at about one price; that of the loop over places likewise, at six times the
price. Up to 100 positions the fixed costs of bands and loop decide.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from mixlab.errors import Quoted, expected, unknown
from mixlab.ops import local_attention_flex as flex
from mixlab.ops import local_attention_native as native
from mixlab.ops import local_attention_natten as natten
from mixlab.ops import local_attention_pure as pure
from mixlab.ops import local_attention_triton as triton
from mixlab.ops.local_attention_problem import WHERE, Problem, wants_gradient
from mixlab.ops.local_attention_reference import reference
from mixlab.ops.neighbours import Ints, Window
from mixlab.ops.windows import clipped_pairs

DENSE_TOKENS = 100
PRICES = {"dense": 1, "bands": 1, "shift": 6}  # of a pair
SHIFTED_PRICE = 14  # of a pair in the loop over places, where windows are shifted: maps are copied

# The native kernel computes windows only, fused attention everything at a better rate: it is as fast or faster where
# windows hold at least this share of all pairs and heads are at least this wide, or windows hold all pairs. With
# AVX-512 the kernel still wins at 7 x 7 with k7, a share of 0.57, and loses a training step at 6 x 6 x 6, one of 0.58.
DENSE_SHARE, DENSE_SHARE_AVX512 = 0.55, 0.575
DENSE_HEAD_DIM = 32


@dataclass(frozen=True)
class Choice:
    """What computes a problem.

    Attributes:
        backend: ``reference``, ``pure``, ``native``, ``triton``, ``flex`` or ``natten``.
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


class Asked(NamedTuple):
    """What a choice depends on."""

    backend: str
    device: str
    dtype: torch.dtype
    shape: tuple[int, ...]  # of q: (B, heads, head_dim, *spatial)
    window: Window
    options: tuple[Hashable, ...]


def choose(p: Problem, backend: str) -> Choice:
    """Backend and path for a problem.

    Raises:
        UserError: the backend is unknown, or is asked for by name and cannot compute this.
    """
    if backend not in BACKENDS:
        raise unknown(f"{WHERE} backend", backend, BACKENDS)
    if torch.compiler.is_compiling():
        if backend == "auto" and not torch.compiler.is_exporting():
            kernel = {"cpu": "native", "cuda": "triton"}.get(p.q.device.type)
            if kernel is not None and TABLE[kernel].unsupported(p) is None:
                return Choice(kernel, kernel, "a compiled graph for this machine")
        if backend in ("auto", "pure"):
            return Choice("pure", "shift", "a traced graph keeps its sizes dynamic")
        return _choose(p, backend)
    options = (
        p.softcap is None, p.needs_lse, p.bias is None, None if p.extra_k is None else p.extra_k.shape,
        p.extra_bias is None, p.scale == 0, wants_gradient(p),
    )  # fmt: skip
    key = Asked(backend, p.q.device.type, p.q.dtype, tuple(p.q.shape), p.window, options)
    if key not in _CHOICES:
        _CHOICES[key] = _choose(p, backend)
        while len(_CHOICES) > MAX_CHOICES:
            _CHOICES.popitem(last=False)
    return _CHOICES[key]


MAX_CHOICES = 256
_CHOICES: OrderedDict[Asked, Choice] = OrderedDict()


def choices_made() -> dict[Asked, Choice]:
    """What was asked for in this process so far (the latest 256), and what was chosen; for records."""
    return dict(_CHOICES)


def _choose(p: Problem, backend: str) -> Choice:
    if backend in pure.PATHS:
        refused(backend, pure.unsupported(backend, p))
        return Choice("pure", backend, "asked for")
    if backend in TABLE and backend != "pure":
        refused(backend, TABLE[backend].unsupported(p))
        return Choice(backend, backend, "asked for")
    others: dict[str, str] = {"reference": "slow; it is the definition"}
    chosen = None
    for name in TABLE:
        if name in others or name == "pure":
            continue
        others[name] = "the pure backend was asked for" if backend == "pure" else why_not(name, p)
        if not others[name]:
            chosen = name
            del others[name]
    if chosen is not None:
        slower = dict.fromkeys(pure.PATHS, f"slower than the {chosen} kernel")
        return Choice(chosen, chosen, f"the fastest on {p.q.device.type} for {p.q.dtype}", others | slower)
    tokens = math.prod(p.size)
    missing = {path: why for path in pure.PATHS if (why := pure.unsupported(path, p)) is not None}
    path = choose_path(p.size, *p.window, without=tuple(missing))
    for other in pure.PATHS:
        if other != path:
            others[other] = missing.get(other, f"slower at {tokens} positions and this window")
    return Choice("pure", path, REASONS[path], others)


def why_not(name: str, p: Problem) -> str:
    """Why ``auto`` does not take a backend with a kernel of its own for a problem; empty if it does."""
    reason = TABLE[name].unsupported(p)
    if reason is not None:
        return reason
    if name == "native":
        share = clipped_pairs(p.size, *p.window[:2]) / math.prod(p.size) ** 2  # shifted windows hold hardly more
        least = DENSE_SHARE_AVX512 if native.instruction_set() == "avx512" else DENSE_SHARE
        wide = share >= least and p.q.shape[2] >= DENSE_HEAD_DIM
        return "windows hold most pairs: dense attention is faster" if wide or p.window.covers(p.size) else ""
    if name == "triton":
        return "" if p.q.device.type == "cuda" else "its interpreter is for tests"
    return "only by name: for comparison"


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


Result = tuple[Tensor, Tensor | None]


@dataclass(frozen=True)
class Backend:
    """What computes problems of local attention.

    Attributes:
        unavailable: why it cannot be used on this machine, or None.
        unsupported: why it cannot compute a problem, or None.
        run: the output ``(B, heads, d, *spatial)`` and, where asked for, the log-sum-exp ``(B, heads, *spatial)``.
    """

    unavailable: Callable[[], str | None]
    unsupported: Callable[[Problem], str | None]
    run: Callable[[Problem], Result]


def _always(*_: Problem) -> None:
    return None


TABLE = {
    "reference": Backend(_always, _always, reference),
    "pure": Backend(_always, _always, lambda p: run(p, choose(p, "pure"))),
    "native": Backend(native.unavailable, native.unsupported, native.run),
    "triton": Backend(triton.unavailable, triton.unsupported, triton.run),
    "flex": Backend(flex.unavailable, flex.unsupported, flex.run),
    "natten": Backend(natten.unavailable, natten.unsupported, natten.run),
}
BACKENDS = ("auto", *TABLE, *pure.PATHS)


def run(p: Problem, choice: Choice) -> Result:
    """Compute a problem as chosen."""
    if choice.backend == "pure":
        return pure.PATHS[choice.path](p)
    return TABLE[choice.backend].run(p)


def backend_status() -> dict[str, str | None]:
    """For each backend None if it can be used on this machine, else the reason why not."""
    return {name: backend.unavailable() for name, backend in TABLE.items()}


def refused(backend: str, reason: str | None) -> None:
    """Raise the UserError for a backend asked for by name that cannot compute this."""
    if reason is not None:
        raise expected(f"{WHERE} backend", f"a problem for {backend!r}", Quoted(reason), "backend='auto'")
