"""The native CPU kernel of local attention: its library, and operators that autograd, compile and export accept.

The library has a plain C interface (``mixlab/ops/native/abi.h``) and takes tensors with any strides, so that views of
channels-last maps need no copy. Results do not depend on the number of threads, which is ``torch.get_num_threads()``.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LIBRARY = Path(os.environ.get("MIXLAB_NATIVE_FOLDER", Path(__file__).parent / "native"))  # a sanitizer's build
MAX_HEAD_DIM = 128
DTYPES = {torch.float32: 0, torch.float64: 1}
_VIEWS = (
    "q", "k", "v", "out", "lse", "bias", "ek", "ev", "eb",
    "dout", "dlse", "dq", "dk", "dv", "dbias", "dek", "dev", "deb", "w", "dw",
)  # fmt: skip  # in the order of ``struct Problem``
_PROBLEM = struct.Struct(f"18qd{8 * len(_VIEWS)}q")
_ABSENT = (0,) * 8
_POISON = [0]  # tests set it: scratch memory starts as NaN


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    """The library, or None and the reason."""
    found = [p for p in (LIBRARY / f"libmixlab_native.{end}" for end in ("so", "dylib")) if p.exists()]
    if not found:
        return None, "the native library was not built (no compiler at installation)"
    try:
        library = ctypes.CDLL(str(found[0]))
    except OSError as error:
        return None, f"the native library does not load: {error}"
    library.mixlab_problem_bytes.restype = ctypes.c_int64
    library.mixlab_scratch_bytes.restype = ctypes.c_int64
    library.mixlab_isa.restype = ctypes.c_char_p
    if library.mixlab_problem_bytes() != _PROBLEM.size:
        return None, "the native library is of another version of mixlab"
    return library, ""


def available() -> str | None:
    """None if the native kernel can run here, else the reason why not."""
    library, reason = _load()
    return None if library else reason


def instruction_set() -> str:
    """``avx512``, ``avx2`` or ``portable``: what the kernel runs with."""
    library, reason = _load()
    return library.mixlab_isa().decode() if library else reason


def set_instruction_set(name: str) -> bool:
    """Choose another one (for tests and benchmarks); False if this machine does not have it."""
    library, _ = _load()
    return library is not None and library.mixlab_set_isa(name.encode()) == 0


def supports(
    q: Tensor, kernel: Sequence[int], dilation: Sequence[int], border: str = "clip", softcap: float | None = None
) -> str | None:
    """None if the kernel takes this problem, else the reason why not."""
    if q.device.type != "cpu":
        return f"the native kernel is for the CPU, not {q.device.type}"
    if q.dtype not in DTYPES:
        return f"the native kernel takes float32 and float64, not {str(q.dtype).removeprefix('torch.')}"
    if softcap is not None:
        return "the native kernel has no softcap"
    if q.shape[2] > MAX_HEAD_DIM:
        return f"the native kernel takes head sizes up to {MAX_HEAD_DIM}, not {q.shape[2]}"
    return None


def supports_aggregate(v: Tensor, kernel: Sequence[int], dilation: Sequence[int], border: str = "clip") -> str | None:
    """The same for :func:`aggregate`."""
    reason = supports(v, kernel, dilation, border)
    groups = [n // step for n, step in zip(v.shape[3:], dilation, strict=True)]
    if reason is None and border == "shift" and any(k > n for k, n in zip(kernel, groups, strict=True)):
        return "the native kernel does not aggregate with shifted windows larger than the grid"
    return reason


def run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kernel: Sequence[int],
    dilation: Sequence[int],
    border: str,
    bias: Tensor | None,
    scale: float,
    softcap: float | None,
    extra_k: Tensor | None,
    extra_v: Tensor | None,
    extra_bias: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Output ``(B, heads, d, *spatial)`` and log-sum-exp ``(B, heads, *spatial)`` of a validated problem.

    The output of channels-last queries is channels-last.
    """
    assert softcap is None, "supports() refuses it"
    dtype = q.dtype
    if bias is not None:
        bias = bias.to(dtype).flatten(1)
    if extra_k is not None and extra_v is not None:
        extra_k, extra_v = extra_k.to(dtype), extra_v.to(dtype)
        if extra_bias is not None:
            keys = extra_k.shape[-2]
            extra_bias = extra_bias.to(dtype).expand(q.shape[0], q.shape[1], *q.shape[3:], keys)
    return _attend(
        q, k, v, list(kernel), list(dilation), border == "shift", float(scale), bias, extra_k, extra_v, extra_bias
    )


def aggregate(
    weights: Tensor, v: Tensor, kernel: Sequence[int], dilation: Sequence[int], border: str = "clip"
) -> Tensor:
    """``y[i] = sum_j weights[i, j] v[neighbour j of i]`` for weights ``(B, heads, *spatial, K)``."""
    return _aggregate(weights, v, list(kernel), list(dilation), border == "shift")


def scratch_bytes(q: Tensor, kernel: Sequence[int], dilation: Sequence[int], border: str, *, backward: bool) -> int:
    """Scratch memory of a thread."""
    library, reason = _load()
    assert library is not None, reason
    problem = _problem(q, kernel, dilation, border == "shift", 1.0, None, {})
    return library.mixlab_scratch_bytes(problem, int(backward))


# The operators.


@torch.library.custom_op("mixlab::local_attention", mutates_args=(), device_types="cpu")
def _attend(
    q: Tensor, k: Tensor, v: Tensor, kernel: list[int], dilation: list[int], shift: bool, scale: float,
    bias: Tensor | None, extra_k: Tensor | None, extra_v: Tensor | None, extra_bias: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    out, lse = _like(q), q.new_empty(q.shape[:2] + q.shape[3:])
    views = _inputs(q, k, v, bias, extra_k, extra_v, extra_bias) | {"out": _map(out), "lse": _row(lse)}
    _call("mixlab_forward", _problem(q, kernel, dilation, shift, scale, extra_k, views))
    return out, lse


@_attend.register_fake
def _(q: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return _like(q), q.new_empty(q.shape[:2] + q.shape[3:])


@torch.library.custom_op("mixlab::local_attention_backward", mutates_args=(), device_types="cpu")
def _attend_backward(
    dout: Tensor, dlse: Tensor | None, lse: Tensor, q: Tensor, k: Tensor, v: Tensor, kernel: list[int],
    dilation: list[int], shift: bool, scale: float, bias: Tensor | None, extra_k: Tensor | None,
    extra_v: Tensor | None, extra_bias: Tensor | None, want_bias: bool, want_extra_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    grads = _gradients(q, k, v, bias, extra_k, extra_v, extra_bias, want_bias, want_extra_bias)
    dq, dk, dv, dbias, dek, dev, deb = grads
    views = _inputs(q, k, v, bias, extra_k, extra_v, extra_bias)
    views |= {"dout": _map(dout), "lse": _row(lse), "dq": _map(dq), "dk": _map(dk), "dv": _map(dv)}
    if dlse is not None:
        views["dlse"] = _row(dlse)
    if want_bias:
        views["dbias"] = (dbias.data_ptr(), *_ABSENT[1:])
    if extra_k is not None:
        views |= {"dek": _extra(dek), "dev": _extra(dev)}
    if want_extra_bias:
        views["deb"] = _row(deb[..., 0], deb.stride(-1))
    _call("mixlab_backward", _problem(q, kernel, dilation, shift, scale, extra_k, views))
    return grads


@_attend_backward.register_fake
def _(
    dout: Tensor, dlse: Tensor | None, lse: Tensor, q: Tensor, k: Tensor, v: Tensor, kernel: list[int],
    dilation: list[int], shift: bool, scale: float, bias: Tensor | None, extra_k: Tensor | None,
    extra_v: Tensor | None, extra_bias: Tensor | None, want_bias: bool, want_extra_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return _gradients(q, k, v, bias, extra_k, extra_v, extra_bias, want_bias, want_extra_bias)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, ctx.kernel, ctx.dilation, ctx.shift, ctx.scale, bias, extra_k, extra_v, extra_bias = inputs
    ctx.save_for_backward(output[1], q, k, v, bias, extra_k, extra_v, extra_bias)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dout: Tensor | None, dlse: Tensor | None) -> tuple[Any, ...]:
    lse, q, k, v, bias, extra_k, extra_v, extra_bias = ctx.saved_tensors
    if dout is None:
        dout = torch.zeros_like(q)
    wants = (bias is not None and ctx.needs_input_grad[7], extra_bias is not None and ctx.needs_input_grad[10])
    dq, dk, dv, dbias, dek, dev, deb = _attend_backward(
        dout, dlse, lse, q, k, v, ctx.kernel, ctx.dilation, ctx.shift, ctx.scale, bias, extra_k, extra_v, extra_bias,
        *wants,
    )  # fmt: skip
    extra = (None, None) if extra_k is None else (dek, dev)
    return dq, dk, dv, None, None, None, None, dbias if wants[0] else None, *extra, deb if wants[1] else None


_attend.register_autograd(_differentiate, setup_context=_save)


@torch.library.custom_op("mixlab::local_aggregate", mutates_args=(), device_types="cpu")
def _aggregate(weights: Tensor, v: Tensor, kernel: list[int], dilation: list[int], shift: bool) -> Tensor:
    out = _like(v)
    views = {"v": _map(v), "out": _map(out), "w": _row(weights[..., 0], weights.stride(-1))}
    _call("mixlab_forward", _problem(v, kernel, dilation, shift, 1.0, None, views))
    return out


@_aggregate.register_fake
def _(weights: Tensor, v: Tensor, kernel: list[int], dilation: list[int], shift: bool) -> Tensor:
    return _like(v)


@torch.library.custom_op("mixlab::local_aggregate_backward", mutates_args=(), device_types="cpu")
def _aggregate_backward(
    dout: Tensor, weights: Tensor, v: Tensor, kernel: list[int], dilation: list[int], shift: bool
) -> tuple[Tensor, Tensor]:
    dw, dv = _like_weights(weights), _like(v)
    views = {"v": _map(v), "dout": _map(dout), "dv": _map(dv)}
    views |= {"w": _row(weights[..., 0], weights.stride(-1)), "dw": _row(dw[..., 0], dw.stride(-1))}
    _call("mixlab_backward", _problem(v, kernel, dilation, shift, 1.0, None, views))
    return dw, dv


@_aggregate_backward.register_fake
def _(
    dout: Tensor, weights: Tensor, v: Tensor, kernel: list[int], dilation: list[int], shift: bool
) -> tuple[Tensor, Tensor]:
    return _like_weights(weights), _like(v)


def _save_aggregate(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    weights, v, ctx.kernel, ctx.dilation, ctx.shift = inputs
    ctx.save_for_backward(weights, v)


def _differentiate_aggregate(ctx: Any, dout: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
    dw, dv = _aggregate_backward(dout, *ctx.saved_tensors, ctx.kernel, ctx.dilation, ctx.shift)
    return dw, dv, None, None, None


_aggregate.register_autograd(_differentiate_aggregate, setup_context=_save_aggregate)


# Tensors as the library sees them: an address and strides over (b, head, channel, z, y, x, extra key).


def _like(t: Tensor) -> Tensor:
    """Uninitialised, of the shape of a map ``(B, heads, d, *spatial)``, channels innermost if they are in ``t``."""
    batch, heads, d, *size = t.shape
    if t.stride(2) != 1 or t.stride(-1) == 1:
        return t.new_empty(t.shape)
    axes = len(size)
    return t.new_empty((batch, *size, heads, d)).permute(0, axes + 1, axes + 2, *range(1, axes + 1))


def _like_weights(t: Tensor) -> Tensor:
    """The same for weights ``(B, heads, *spatial, K)``, whose offsets are innermost or lie before the positions."""
    if t.stride(-1) == 1:
        return t.new_empty(t.shape)
    return t.new_empty((*t.shape[:2], t.shape[-1], *t.shape[2:-1])).movedim(2, -1)


def _gradients(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, extra_k: Tensor | None, extra_v: Tensor | None,
    extra_bias: Tensor | None, want_bias: bool, want_extra_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Room for the gradients; nothing where there is none to compute (an operator returns tensors only)."""
    nothing = [q.new_empty(0) for _ in range(4)]
    dbias = torch.empty_like(bias, memory_format=torch.contiguous_format) if want_bias and bias is not None else None
    dek = None if extra_k is None else torch.empty_like(extra_k, memory_format=torch.contiguous_format)
    dev = None if extra_v is None else torch.empty_like(extra_v, memory_format=torch.contiguous_format)
    deb = None if extra_bias is None or not want_extra_bias else q.new_empty(extra_bias.shape)
    optional = [n if t is None else t for n, t in zip(nothing, (dbias, dek, dev, deb), strict=True)]
    return _like(q), _like(k), _like(v), optional[0], optional[1], optional[2], optional[3]


def _spatial(strides: tuple[int, ...]) -> tuple[int, ...]:
    return (0,) * (3 - len(strides)) + strides


def _map(t: Tensor) -> tuple[int, ...]:
    """(B, heads, d, *spatial)"""
    s = t.stride()
    return (t.data_ptr(), *s[:3], *_spatial(s[3:]), 0)


def _row(t: Tensor, extra: int = 0) -> tuple[int, ...]:
    """(B, heads, *spatial)"""
    s = t.stride()
    return (t.data_ptr(), s[0], s[1], 0, *_spatial(s[2:]), extra)


def _extra(t: Tensor) -> tuple[int, ...]:
    """(B, heads, E, d) or (B, heads, *spatial, E, d)"""
    s = t.stride()
    return (t.data_ptr(), s[0], s[1], s[-1], *_spatial(s[2:-2]), s[-2])


def _inputs(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, extra_k: Tensor | None, extra_v: Tensor | None,
    extra_bias: Tensor | None,
) -> dict[str, tuple[int, ...]]:  # fmt: skip
    views = {"q": _map(q), "k": _map(k), "v": _map(v)}
    if bias is not None:
        assert bias.is_contiguous(), "run() flattens it"
        views["bias"] = (bias.data_ptr(), *_ABSENT[1:])
    if extra_k is not None and extra_v is not None:
        views |= {"ek": _extra(extra_k), "ev": _extra(extra_v)}
        if extra_bias is not None:
            views["eb"] = _row(extra_bias[..., 0], extra_bias.stride(-1))
    return views


def _problem(
    q: Tensor, kernel: Sequence[int], dilation: Sequence[int], shift: bool, scale: float, extra_k: Tensor | None,
    views: dict[str, tuple[int, ...]],
) -> bytes:  # fmt: skip
    """``struct Problem`` of abi.h."""
    batch, heads, d, *size = q.shape
    unit = (1,) * (3 - len(size))
    extra = 0 if extra_k is None else extra_k.shape[-2]
    shared = int(extra_k is not None and extra_k.ndim == 4)
    words = (
        DTYPES[q.dtype], batch, heads, d, *unit, *size, *unit, *kernel, *unit, *dilation, int(shift), extra, shared,
        torch.get_num_threads(), _POISON[0],
    )  # fmt: skip
    addresses = [word for name in _VIEWS for word in views.get(name, _ABSENT)]
    return _PROBLEM.pack(*words, scale, *addresses)


def _call(function: str, problem: bytes) -> None:
    library, reason = _load()
    if library is None:
        raise RuntimeError(reason)
    if math.prod(struct.unpack_from("6q", problem, 8)) == 0:
        return  # an empty batch or grid
    if getattr(library, function)(problem):
        raise MemoryError("mixlab's native kernel: no memory for its scratch space")
