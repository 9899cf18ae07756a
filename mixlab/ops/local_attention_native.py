"""The native CPU kernel of local attention: its library, and operators that autograd, compile and export accept.

The library has a plain C interface (``mixlab/ops/native/abi.h``) and takes tensors with any strides, so that views of
channels-last maps need no copy. Results do not depend on the number of threads, which is ``torch.get_num_threads()``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mixlab.ops.local_attention_problem import Problem, wants_gradient, wide
from mixlab.ops.native.library import (
    ABSENT,
    MAX_HEAD_DIM,
    call,
    extra_view,
    like,
    like_weights,
    load,
    map_view,
    pack_problem,
    row_view,
    unwatched,
)
from mixlab.ops.neighbours import Window


def unavailable() -> str | None:
    """Why the native kernel cannot run on this machine, or None."""
    library, reason = load()
    return None if library else reason


def instruction_set() -> str:
    """``avx512``, ``avx2`` or ``portable``: what the kernel runs with."""
    library, reason = load()
    return library.mixlab_isa().decode() if library else reason


def set_instruction_set(name: str) -> bool:
    """Choose another one (for tests and benchmarks); False if this machine does not have it."""
    library, _ = load()
    return library is not None and library.mixlab_set_isa(name.encode()) == 0


def unsupported(p: Problem) -> str | None:
    """Why the kernel cannot compute this, or None."""
    return _refused(p.q)


def unsupported_aggregate(v: Tensor, window: Window) -> str | None:
    """The same for :func:`aggregate`."""
    groups = [n // step for n, step in zip(v.shape[3:], window.dilation, strict=True)]
    if window.border == "shift" and any(k > n for k, n in zip(window.kernel, groups, strict=True)):
        return "the native kernel does not aggregate with shifted windows larger than the grid"
    return _refused(v)


def _refused(t: Tensor) -> str | None:
    if t.device.type != "cpu":
        return f"the native kernel is for the CPU, not {t.device.type}"
    if torch.compiler.is_compiling():  # the library was looked for before: a tracer does not follow into it
        return None if FOUND and t.shape[2] <= MAX_HEAD_DIM else "see the eager call"
    reason = unavailable()
    if reason is not None:
        return reason
    if t.shape[2] > MAX_HEAD_DIM:
        return f"the native kernel takes head sizes up to {MAX_HEAD_DIM}, not {t.shape[2]}"
    return "an empty batch" if t.shape[0] == 0 else None


FOUND = unavailable() is None
Gradients = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None]  # of q, k, v, ...


def run(p: Problem) -> tuple[Tensor, Tensor]:
    """Output ``(B, heads, d, *spatial)`` and log-sum-exp ``(B, heads, *spatial)``.

    The output of channels-last queries is channels-last. Half types are computed in float32.
    """
    half, w, p = p.q.dtype, p.window, p.to(wide(p.q.dtype))
    bias = None if p.bias is None else p.bias.flatten(1)
    extra_bias = p.extra_bias
    if p.extra_k is not None and extra_bias is not None:
        extra_bias = extra_bias.expand(p.q.shape[0], p.q.shape[1], *p.size, p.extra_k.shape[-2])
    arguments = (
        p.q, p.k, p.v, list(w.kernel), list(w.dilation), w.border == "shift", float(p.scale), p.softcap or 0.0, bias,
        p.extra_k, p.extra_v, extra_bias,
    )  # fmt: skip
    if not unwatched(p.q, p.k, p.v, bias, p.extra_k, p.extra_v, extra_bias):
        out, lse = _attend(*arguments)
    elif wants_gradient(p):
        out, lse = _Attend.apply(*arguments)
    else:
        out, lse = _forward(*arguments)
    return out if out.dtype is half else out.to(half), lse


def aggregate(weights: Tensor, v: Tensor, window: Window) -> Tensor:
    """``y[i] = sum_j weights[i, j] v[neighbour j of i]`` for weights ``(B, heads, *spatial, K)``."""
    dtype = wide(v.dtype)
    shift = window.border == "shift"
    out = _aggregate(weights.to(dtype), v.to(dtype), list(window.kernel), list(window.dilation), shift)
    return out.to(v.dtype)


def scratch_bytes(q: Tensor, kernel: Sequence[int], dilation: Sequence[int], border: str, *, backward: bool) -> int:
    """Scratch memory of a thread."""
    library, reason = load()
    assert library is not None, reason
    problem = pack_problem(q, kernel, dilation, border == "shift", 1.0, None, {})
    return library.mixlab_scratch_bytes(problem, int(backward))


# The operators.


def _forward(
    q: Tensor, k: Tensor, v: Tensor, kernel: list[int], dilation: list[int], shift: bool, scale: float,
    softcap: float, bias: Tensor | None, extra_k: Tensor | None, extra_v: Tensor | None, extra_bias: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    out, lse = like(q), q.new_empty(q.shape[:2] + q.shape[3:])
    views = _inputs(q, k, v, bias, extra_k, extra_v, extra_bias) | {"out": map_view(out), "lse": row_view(lse)}
    call("mixlab_forward", pack_problem(q, kernel, dilation, shift, scale, extra_k, views, softcap))
    return out, lse


_attend = torch.library.custom_op("mixlab::local_attention", _forward, mutates_args=(), device_types="cpu")


@_attend.register_fake
def _(q: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return like(q), q.new_empty(q.shape[:2] + q.shape[3:])


def _backward(
    dout: Tensor, dlse: Tensor | None, lse: Tensor, q: Tensor, k: Tensor, v: Tensor, kernel: list[int],
    dilation: list[int], shift: bool, scale: float, softcap: float, bias: Tensor | None, extra_k: Tensor | None,
    extra_v: Tensor | None, extra_bias: Tensor | None, want_bias: bool, want_extra_bias: bool,
) -> Gradients:  # fmt: skip
    grads = _gradients(q, k, v, bias, extra_k, extra_v, extra_bias, want_bias, want_extra_bias)
    dq, dk, dv, dbias, dek, dev, deb = grads
    views = _inputs(q, k, v, bias, extra_k, extra_v, extra_bias)
    views |= {"dout": map_view(dout), "lse": row_view(lse), "dq": map_view(dq), "dk": map_view(dk), "dv": map_view(dv)}
    if dlse is not None:
        views["dlse"] = row_view(dlse)
    if dbias is not None:
        views["dbias"] = (dbias.data_ptr(), *ABSENT[1:])
    if dek is not None and dev is not None:
        views |= {"dek": extra_view(dek), "dev": extra_view(dev)}
    if deb is not None:
        views["deb"] = row_view(deb[..., 0], deb.stride(-1))
    call("mixlab_backward", pack_problem(q, kernel, dilation, shift, scale, extra_k, views, softcap))
    return grads


@torch.library.custom_op("mixlab::local_attention_backward", mutates_args=(), device_types="cpu")
def _attend_backward(
    dout: Tensor, dlse: Tensor | None, lse: Tensor, q: Tensor, k: Tensor, v: Tensor, kernel: list[int],
    dilation: list[int], shift: bool, scale: float, softcap: float, bias: Tensor | None, extra_k: Tensor | None,
    extra_v: Tensor | None, extra_bias: Tensor | None, want_bias: bool, want_extra_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return _filled(q, _backward(
        dout, dlse, lse, q, k, v, kernel, dilation, shift, scale, softcap, bias, extra_k, extra_v, extra_bias,
        want_bias, want_extra_bias,
    ))  # fmt: skip


@_attend_backward.register_fake
def _(
    dout: Tensor, dlse: Tensor | None, lse: Tensor, q: Tensor, k: Tensor, v: Tensor, kernel: list[int],
    dilation: list[int], shift: bool, scale: float, softcap: float, bias: Tensor | None, extra_k: Tensor | None,
    extra_v: Tensor | None, extra_bias: Tensor | None, want_bias: bool, want_extra_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return _filled(q, _gradients(q, k, v, bias, extra_k, extra_v, extra_bias, want_bias, want_extra_bias))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, ctx.kernel, ctx.dilation, ctx.shift, ctx.scale, ctx.softcap, bias, extra_k, extra_v, extra_bias = inputs
    ctx.save_for_backward(output[1], q, k, v, bias, extra_k, extra_v, extra_bias)
    ctx.set_materialize_grads(False)


def _differentiate(
    ctx: Any, dout: Tensor | None, dlse: Tensor | None, backward: Callable[..., Any] = _attend_backward
) -> tuple[Any, ...]:
    lse, q, k, v, bias, extra_k, extra_v, extra_bias = ctx.saved_tensors
    if dout is None:
        dout = torch.zeros_like(q)
    wants = (bias is not None and ctx.needs_input_grad[8], extra_bias is not None and ctx.needs_input_grad[11])
    dq, dk, dv, dbias, dek, dev, deb = backward(
        dout, dlse, lse, q, k, v, ctx.kernel, ctx.dilation, ctx.shift, ctx.scale, ctx.softcap, bias, extra_k, extra_v,
        extra_bias, *wants,
    )  # fmt: skip
    dbias, deb = (g if wanted else None for g, wanted in zip((dbias, deb), wants, strict=True))
    dek, dev = (None, None) if extra_k is None else (dek, dev)
    return dq, dk, dv, None, None, None, None, None, dbias, dek, dev, deb


_attend.register_autograd(_differentiate, setup_context=_save)


class _Attend(torch.autograd.Function):
    """The same without the operators."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        output = _forward(*arguments)
        _save(ctx, arguments, output)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor | None, dlse: Tensor | None) -> tuple[Any, ...]:
        return _differentiate(ctx, dout, dlse, _backward if unwatched(dout, dlse) else _attend_backward)


@torch.library.custom_op("mixlab::local_aggregate", mutates_args=(), device_types="cpu")
def _aggregate(weights: Tensor, v: Tensor, kernel: list[int], dilation: list[int], shift: bool) -> Tensor:
    out = like(v)
    views = {"v": map_view(v), "out": map_view(out), "w": row_view(weights[..., 0], weights.stride(-1))}
    call("mixlab_forward", pack_problem(v, kernel, dilation, shift, 1.0, None, views))
    return out


@_aggregate.register_fake
def _(weights: Tensor, v: Tensor, kernel: list[int], dilation: list[int], shift: bool) -> Tensor:
    return like(v)


@torch.library.custom_op("mixlab::local_aggregate_backward", mutates_args=(), device_types="cpu")
def _aggregate_backward(
    dout: Tensor, weights: Tensor, v: Tensor, kernel: list[int], dilation: list[int], shift: bool
) -> tuple[Tensor, Tensor]:
    dw, dv = like_weights(weights), like(v)
    views = {"v": map_view(v), "dout": map_view(dout), "dv": map_view(dv)}
    views |= {"w": row_view(weights[..., 0], weights.stride(-1)), "dw": row_view(dw[..., 0], dw.stride(-1))}
    call("mixlab_backward", pack_problem(v, kernel, dilation, shift, 1.0, None, views))
    return dw, dv


@_aggregate_backward.register_fake
def _(
    dout: Tensor, weights: Tensor, v: Tensor, kernel: list[int], dilation: list[int], shift: bool
) -> tuple[Tensor, Tensor]:
    return like_weights(weights), like(v)


def _save_aggregate(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    weights, v, ctx.kernel, ctx.dilation, ctx.shift = inputs
    ctx.save_for_backward(weights, v)


def _differentiate_aggregate(ctx: Any, dout: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
    dw, dv = _aggregate_backward(dout, *ctx.saved_tensors, ctx.kernel, ctx.dilation, ctx.shift)
    return dw, dv, None, None, None


_aggregate.register_autograd(_differentiate_aggregate, setup_context=_save_aggregate)


def _gradients(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, extra_k: Tensor | None, extra_v: Tensor | None,
    extra_bias: Tensor | None, want_bias: bool, want_extra_bias: bool,
) -> Gradients:  # fmt: skip
    """Room for the gradients; None where there is none to compute."""
    dbias = torch.empty_like(bias, memory_format=torch.contiguous_format) if want_bias and bias is not None else None
    dek = None if extra_k is None else torch.empty_like(extra_k, memory_format=torch.contiguous_format)
    dev = None if extra_v is None else torch.empty_like(extra_v, memory_format=torch.contiguous_format)
    deb = None if extra_bias is None or not want_extra_bias else q.new_empty(extra_bias.shape)
    return like(q), like(k), like(v), dbias, dek, dev, deb


def _filled(q: Tensor, grads: Gradients) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Empty tensors for what is None: an operator returns tensors only."""
    dq, dk, dv, *others = grads
    dbias, dek, dev, deb = (q.new_empty(0) if t is None else t for t in others)
    return dq, dk, dv, dbias, dek, dev, deb


def _inputs(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, extra_k: Tensor | None, extra_v: Tensor | None,
    extra_bias: Tensor | None,
) -> dict[str, tuple[int, ...]]:  # fmt: skip
    views = {"q": map_view(q), "k": map_view(k), "v": map_view(v)}
    if bias is not None:
        assert bias.is_contiguous(), "run() flattens it"
        views["bias"] = (bias.data_ptr(), *ABSENT[1:])
    if extra_k is not None and extra_v is not None:
        views |= {"ek": extra_view(extra_k), "ev": extra_view(extra_v)}
        if extra_bias is not None:
            views["eb"] = row_view(extra_bias[..., 0], extra_bias.stride(-1))
    return views
