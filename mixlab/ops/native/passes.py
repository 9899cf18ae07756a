"""Calls of the native library's passes over maps (``passes.h``), and when they are possible."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mixlab.ops.native import library

KINDS = ("pool", "norm", "norm_backward", "residual", "residual_backward", "gelu", "gelu_backward")  # as in passes.h
PASS = struct.Struct("14qd7q")
DTYPES = {torch.float32: 0, torch.float64: 1}
ENABLED = [True]  # tests and benchmarks set it: False takes the tensor operations everywhere
_REASONS: list[str | None] = []
_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def unavailable() -> str | None:
    """Why this installation computes with tensor operations only, or None."""
    if not _REASONS:
        loaded, reason = library.load()
        if loaded is not None and not (hasattr(loaded, "mixlab_pass") and loaded.mixlab_pass_bytes() == PASS.size):
            reason = "the native library is of another version of mixlab"
        _REASONS.append(reason or None)
    return _REASONS[0]


def takes(x: Tensor, *vectors: Tensor | None) -> bool:
    """The library computes this map ``(B, C, *spatial)`` here and now: CPU, channels innermost, nobody watching."""
    return (
        ENABLED[0]
        and library.unwatched(x)
        and not torch.is_autocast_enabled("cpu")
        and unavailable() is None
        and x.dtype in DTYPES
        and all(v is None or (v.dtype is x.dtype and v.is_contiguous()) for v in vectors)
        and innermost(x)
    )


def innermost(x: Tensor) -> bool:
    """The channels of a map lie innermost in memory, without gaps."""
    if x.ndim in _FORMATS:
        return x.is_contiguous(memory_format=_FORMATS[x.ndim])
    return x.movedim(1, -1).is_contiguous()


def brought_innermost(x: Tensor) -> Tensor:
    """The same map with its channels innermost."""
    return x if innermost(x) else x.movedim(1, -1).contiguous().movedim(-1, 1)


def run(
    kind: str,
    x: Tensor,
    inputs: Sequence[Tensor | None],
    outputs: Sequence[Tensor | None],
    *,
    kernel: Sequence[int] = (1, 1, 1),
    subtract: bool = False,
    backward: bool = False,
    eps: float = 0.0,
) -> None:
    """One pass over maps like ``x``, ``(B, C, *spatial)`` or ``(rows, C)``; the library writes ``outputs``."""
    batch, channels, *size = x.shape if x.ndim > 2 else (1, x.shape[1], x.shape[0])
    size = [*(1,) * (3 - len(size)), *size]
    addresses = [0] * 7
    for at, given in ((0, inputs), (4, outputs)):
        for i, t in enumerate(given):
            addresses[at + i] = 0 if t is None else t.data_ptr()
    call = PASS.pack(
        KINDS.index(kind), DTYPES[x.dtype], batch, size[0] * size[1] * size[2], channels, torch.get_num_threads(),
        *size, *kernel, subtract, backward, eps, *addresses,
    )  # fmt: skip
    loaded, reason = library.load()
    assert loaded is not None, reason
    if loaded.mixlab_pass(call):
        raise MemoryError("mixlab's native library: no memory for its scratch space")


def gradients_again(plain: Callable[..., Tensor], inputs: Sequence[Tensor | None], grad: Tensor) -> list[Tensor | None]:
    """Gradients of ``inputs`` by the tensor operations of ``plain``, which can be differentiated once more."""
    more = torch.is_grad_enabled()
    with torch.enable_grad():
        own = [None if t is None else t.view_as(t) for t in inputs]  # so that no gradient comes through another input
        wanted = [t for t in own if t is not None and t.requires_grad]
        grads = iter(torch.autograd.grad(plain(*own), wanted, grad, create_graph=more))
    return [next(grads) if t is not None and t.requires_grad else None for t in own]
