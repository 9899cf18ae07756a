"""The native library: where it is, how it is called, and tensors as it sees them (``mixlab/ops/native/abi.h``)."""

from __future__ import annotations

import ctypes
import functools
import math
import os
import struct
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

LIBRARY = Path(os.environ.get("MIXLAB_NATIVE_FOLDER", Path(__file__).parent))  # a sanitizer's build
MAX_HEAD_DIM = 128
DTYPES = {torch.float32: 0, torch.float64: 1}
VIEWS = (
    "q", "k", "v", "out", "lse", "bias", "ek", "ev", "eb",
    "dout", "dlse", "dq", "dk", "dv", "dbias", "dek", "dev", "deb", "w", "dw",
)  # fmt: skip  # in the order of ``struct Problem``
PROBLEM = struct.Struct(f"18q2d{8 * len(VIEWS)}q")
ABSENT = (0,) * 8
POISON = [0]  # tests set it: scratch memory starts as NaN


@functools.cache
def load() -> tuple[ctypes.CDLL | None, str]:
    """The library, or None and the reason."""
    found = [p for p in (LIBRARY / f"libmixlab_native.{end}" for end in ("so", "dylib")) if p.exists()]
    if not found:
        return None, (
            "no C++ compiler worked when mixlab was installed; try: pip install --force-reinstall with one, "
            "or python -m mixlab.ops.native.build"
        )
    try:
        library = ctypes.CDLL(str(found[0]))
    except OSError as error:
        return None, f"the native library does not load: {error}"
    library.mixlab_problem_bytes.restype = ctypes.c_int64
    library.mixlab_scratch_bytes.restype = ctypes.c_int64
    library.mixlab_isa.restype = ctypes.c_char_p
    if library.mixlab_problem_bytes() != PROBLEM.size:
        return None, "the native library is of another version of mixlab"
    return library, ""


def pack_problem(
    q: Tensor, kernel: Sequence[int], dilation: Sequence[int], shift: bool, scale: float, extra_k: Tensor | None,
    views: dict[str, tuple[int, ...]], softcap: float = 0.0,
) -> bytes:  # fmt: skip
    """``struct Problem`` of abi.h."""
    batch, heads, d, *size = q.shape
    unit = (1,) * (3 - len(size))
    extra = 0 if extra_k is None else extra_k.shape[-2]
    shared = int(extra_k is not None and extra_k.ndim == 4)
    words = (
        DTYPES[q.dtype], batch, heads, d, *unit, *size, *unit, *kernel, *unit, *dilation, int(shift), extra, shared,
        torch.get_num_threads(), POISON[0],
    )  # fmt: skip
    addresses = chain.from_iterable([views.get(name, ABSENT) for name in VIEWS])
    return PROBLEM.pack(*words, scale, softcap, *addresses)


def unwatched(*tensors: Tensor | None) -> bool:
    """Nobody but autograd looks, and every tensor's values lie on this machine where its address says.

    Then the library may be called without an operator of PyTorch's around it, whose way through the dispatcher is
    Python that a kernel has just swept out of the caches.
    """
    if torch.compiler.is_compiling() or _watched():
        return False
    return all(t is None or _plain(t) for t in tensors)


def _watched() -> bool:
    """A function transform, a dual number, a dispatch mode or a trace wants to see tensor operations."""
    return (
        torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
    )


def _plain(t: Tensor) -> bool:
    if type(t) not in (Tensor, torch.nn.Parameter) or not t.is_cpu or t.is_neg():
        return False
    try:
        return t.data_ptr() != 0  # empty tensors and those of zeros without memory have none
    except RuntimeError:  # batched by a transform
        return False


def call(function: str, problem: bytes) -> None:
    library, reason = load()
    if library is None:
        raise RuntimeError(reason)
    if math.prod(struct.unpack_from("6q", problem, 8)) == 0:
        return  # an empty batch or grid
    if getattr(library, function)(problem):
        raise MemoryError("mixlab's native kernel: no memory for its scratch space")


# Tensors as the library sees them: an address and strides over (b, head, channel, z, y, x, extra key).


def like(t: Tensor) -> Tensor:
    """Uninitialised, of the shape of a map ``(B, heads, d, *spatial)``, channels innermost if they are in ``t``."""
    batch, heads, d, *size = t.shape
    if t.stride(2) != 1 or t.stride(-1) == 1:
        return t.new_empty(t.shape)
    axes = len(size)
    return t.new_empty((batch, *size, heads, d)).permute(0, axes + 1, axes + 2, *range(1, axes + 1))


def like_weights(t: Tensor) -> Tensor:
    """The same for weights ``(B, heads, *spatial, K)``, whose offsets are innermost or lie before the positions."""
    if t.stride(-1) == 1:
        return t.new_empty(t.shape)
    return t.new_empty((*t.shape[:2], t.shape[-1], *t.shape[2:-1])).movedim(2, -1)


def _spatial(strides: tuple[int, ...]) -> tuple[int, ...]:
    return (0,) * (3 - len(strides)) + strides


def map_view(t: Tensor) -> tuple[int, ...]:
    """(B, heads, d, *spatial)"""
    s = t.stride()
    return (t.data_ptr(), *s[:3], *_spatial(s[3:]), 0)


def row_view(t: Tensor, extra: int = 0) -> tuple[int, ...]:
    """(B, heads, *spatial)"""
    s = t.stride()
    return (t.data_ptr(), s[0], s[1], 0, *_spatial(s[2:]), extra)


def extra_view(t: Tensor) -> tuple[int, ...]:
    """(B, heads, E, d) or (B, heads, *spatial, E, d)"""
    s = t.stride()
    return (t.data_ptr(), s[0], s[1], s[-1], *_spatial(s[2:-2]), s[-2])
