"""Local attention on a GPU: Triton kernels, and operators that autograd, compile and export accept.

One program takes a tile of queries (a box of 32 positions) and multiplies it with the box of keys that its windows
reach, block by block, with the softmax built up on the way. The backward pass computes probabilities again from the
log-sum-exp; every gradient is gathered by one program in a fixed order, without atomic additions, so that results
repeat bit for bit. Scores, softmax and sums are float32. Tensors may have any strides: the output and the gradients of
channels-last maps are channels-last. What is not finite at one position may reach queries of the same tile.

Verified by Triton's interpreter on a CPU (``TRITON_INTERPRET=1``) and compiled for NVIDIA's compute capability 9.0;
not measured on a GPU yet: ``benchmarks/gpu_local_attention.py``.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mixlab.ops.local_attention_problem import Problem
from mixlab.ops.neighbours import Ints

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MAX_HEAD_DIM = 64
# By the number of instructions that the compiler makes for a query, not by measurement.
TILE = 32  # positions of a program, where the grid has as many
BLOCK = 32  # positions that meet them at a time
WARPS = 1  # for 16 channels; for more as many times more
INSTALLED = importlib.util.find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # slowly and on CPU tensors as well: for tests
Strides = tuple[int, ...]


def unavailable() -> str | None:
    """Why the kernels cannot run on this machine, or None."""
    if not INSTALLED:
        return "Triton is not installed; PyTorch brings it for Linux with CUDA"
    if not torch.cuda.is_available() and not INTERPRETED:
        return "there is no CUDA device"
    return None


def unsupported(p: Problem) -> str | None:
    """Why the kernels cannot compute this, or None."""
    if p.q.device.type != "cuda" and not (INTERPRETED and p.q.device.type == "cpu"):
        return "it runs on CUDA devices only"
    reason = unavailable()
    if reason is not None:
        return reason
    if p.q.dtype not in DTYPES:
        return f"it takes float32, float16 and bfloat16, not {str(p.q.dtype).removeprefix('torch.')}"
    if p.q.shape[2] > MAX_HEAD_DIM:
        return f"it takes head sizes up to {MAX_HEAD_DIM}, not {p.q.shape[2]}"
    if torch.compiler.is_compiling():  # there a comparison of dynamic sizes would fix them
        return None
    if p.q.shape[0] == 0:
        return "an empty batch"
    if any(math.prod(t.shape[2:]) >= 2**31 for t in (p.q, p.extra_k, p.extra_bias) if t is not None):
        return "it counts the elements of a head in 32 bits"
    return None


def run(p: Problem) -> tuple[Tensor, Tensor]:
    """Output ``(B, heads, d, *spatial)`` and log-sum-exp ``(B, heads, *spatial)``, in float32."""
    w, extra_bias = p.window, p.extra_bias
    if p.extra_k is not None and extra_bias is not None:
        extra_bias = extra_bias.expand(p.q.shape[0], p.q.shape[1], *p.size, p.extra_k.shape[-2])
    q, k, v, extra_k, extra_v, extra_bias = (
        None if t is None else _near(t) for t in (p.q, p.k, p.v, p.extra_k, p.extra_v, extra_bias)
    )
    return _attend(
        q, k, v, list(w.kernel), list(w.dilation), w.border == "shift", float(p.scale), p.softcap, p.bias, extra_k,
        extra_v, extra_bias,
    )  # fmt: skip


def tile_shape(size: Ints, kernel: Ints, dilation: Ints) -> Ints:
    """The box of powers of two with which all tiles together load the fewest positions.

    It has :data:`TILE` positions, on smaller grids fewer, but no fewer than the 16 rows that tensor cores multiply.
    """
    lengths = [math.ceil(n / step) for n, step in zip(size, dilation, strict=True)]
    positions = min(TILE, max(16, 2 ** (math.prod(lengths) - 1).bit_length()))
    powers = [2**i for i in range(positions.bit_length())]

    def loads(box: Ints) -> int:
        tiles = math.prod(math.ceil(n / t) for n, t in zip(lengths, box, strict=True))
        keys = math.prod(min(t + k - 1, n) for t, k, n in zip(box, kernel, lengths, strict=True))
        return tiles * (positions + math.ceil(keys / BLOCK) * BLOCK)

    boxes = [box for box in itertools.product(powers, repeat=len(size)) if math.prod(box) == positions]
    return min(boxes, key=lambda box: (loads(box), -box[-1]))


class _Plan(NamedTuple):
    """What all kernels of a problem are launched with."""

    programs: int
    constants: dict[str, Any]
    options: dict[str, Any]


def _plan(q: Tensor, kernel: Sequence[int], dilation: Sequence[int], shift: bool, reach: int | None = 1) -> _Plan:
    """``reach``: in how many kernels less one a tile's box is longer than the tile; None for a kernel without box."""
    size, window = _three(q.shape[3:]), _three(kernel)
    step = _three(dilation)
    tile = tile_shape(size, window, step)
    tiles = [math.ceil(math.ceil(n / s) / t) for n, s, t in zip(size, step, tile, strict=True)]
    rests = [min(n, s) for n, s in zip(size, step, strict=True)]
    constants = {"KERNEL": window, "STEP": step, "SHIFT": shift, "TILE": tile, "BLOCK_D": _channels(q)}
    if reach is not None:
        lengths = [math.ceil(n / s) for n, s in zip(size, step, strict=True)]
        extent = tuple(min(t + reach * (k - 1), n) for t, k, n in zip(tile, window, lengths, strict=True))
        constants |= {"BLOCK": BLOCK, "EXTENT": extent}
    return _Plan(
        q.shape[0] * q.shape[1] * math.prod(tiles) * math.prod(rests),
        constants,
        {"num_warps": WARPS * _channels(q) // 16, "enable_fp_fusion": True},
    )


def _three(axes: Sequence[int]) -> Ints:
    """Leading axes of one where there are fewer than three."""
    return (1,) * (3 - len(axes)) + tuple(axes)


def _channels(q: Tensor) -> int:
    """Channels that a program computes: a power of two, at least the 16 that tensor cores multiply."""
    return max(16, 2 ** (q.shape[2] - 1).bit_length())


def _map(t: Tensor) -> Strides:
    """Strides of ``(B, heads, d, *spatial)`` for three axes."""
    s = t.stride()
    return (*s[:3], *(0,) * (6 - len(s)), *s[3:])


def _extra(t: Tensor | None) -> Strides:
    """Strides of ``(B, heads, [*spatial,] E, d)`` in the kernels' order: batch, head, channel, three axes, entry."""
    if t is None:
        return (0,) * 7
    s = t.stride()
    return (*s[:2], s[-1], *(0,) * (7 - len(s)), *s[2:-2], s[-2])


def _extra_bias(t: Tensor | None) -> Strides:
    """Strides of ``(B, heads, *spatial, E)`` likewise, the entry in the channel's place."""
    if t is None:
        return (0,) * 6
    s = t.stride()
    return (*s[:2], s[-1], *(0,) * (6 - len(s)), *s[2:-1])


def _near(t: Tensor) -> Tensor:
    """A copy where a head is spread over more elements than 32 bits count."""
    return t.contiguous() if sum((n - 1) * s for n, s in zip(t.shape[2:], t.stride()[2:], strict=True)) >= 2**31 else t


def _like(t: Tensor) -> Tensor:
    """Uninitialised, of the shape and order of axes of ``t``."""
    return torch.empty_like(t)


def _flat(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.contiguous()


# The operators.


@torch.library.custom_op("mixlab::local_attention_triton", mutates_args=())
def _attend(
    q: Tensor, k: Tensor, v: Tensor, kernel: list[int], dilation: list[int], shift: bool, scale: float,
    softcap: float | None, bias: Tensor | None, extra_k: Tensor | None, extra_v: Tensor | None,
    extra_bias: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    from mixlab.ops.triton_local_attention.forward import forward

    plan = _plan(q, kernel, dilation, shift)
    out, lse = _like(q), q.new_empty(q.shape[:2] + q.shape[3:], dtype=torch.float32)
    forward[(plan.programs,)](
        q, k, v, _flat(bias), extra_k, extra_v, extra_bias, out, lse,
        _map(q), _map(k), _map(v), _extra(extra_k), _extra(extra_v), _extra_bias(extra_bias), _map(out),
        _three(q.shape[3:]), q.shape[1], q.shape[2], _entries(extra_k), scale, softcap,
        OWN=extra_k is not None and extra_k.ndim > 4, **plan.constants, **plan.options,
    )  # fmt: skip
    return out, lse


@_attend.register_fake
def _(q: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return _like(q), q.new_empty(q.shape[:2] + q.shape[3:], dtype=torch.float32)


@torch.library.custom_op("mixlab::local_attention_triton_backward", mutates_args=())
def _attend_backward(
    dout: Tensor, dlse: Tensor | None, out: Tensor, lse: Tensor, q: Tensor, k: Tensor, v: Tensor, kernel: list[int],
    dilation: list[int], shift: bool, scale: float, softcap: float | None, bias: Tensor | None,
    extra_k: Tensor | None, extra_v: Tensor | None, extra_bias: Tensor | None, want_bias: bool, want_extra_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    from mixlab.ops.triton_local_attention.backward_bias import backward_bias
    from mixlab.ops.triton_local_attention.backward_keys import backward_keys, backward_shared
    from mixlab.ops.triton_local_attention.backward_queries import backward_queries

    plan = _plan(q, kernel, dilation, shift)
    room = _gradients(q, k, v, bias, extra_k, extra_v, extra_bias, want_bias, want_extra_bias)
    dq, dk, dv, dbias, dek, dev, deb = room
    delta, flat, own = torch.empty_like(lse), _flat(bias), extra_k is not None and extra_k.ndim > 4
    size, sizes = _three(q.shape[3:]), (q.shape[1], q.shape[2])
    backward_queries[(plan.programs,)](
        q, k, v, flat, extra_k, extra_v, extra_bias, out, lse, dout, None if dlse is None else dlse.contiguous(), delta,
        dq, dek, dev, deb if want_extra_bias else None,
        _map(q), _map(k), _map(v), _extra(extra_k), _extra(extra_v), _extra_bias(extra_bias), _map(out), _map(dout),
        _map(dq), _extra(dek if own else None), _extra(dev if own else None),
        size, *sizes, _entries(extra_k), scale, softcap, OWN=own, **plan.constants, **plan.options,
    )  # fmt: skip
    # A key of a shifted window can be seen from either side over the whole window's length.
    plan = _plan(q, kernel, dilation, shift, reach=2 if shift else 1)
    backward_keys[(plan.programs,)](
        q, k, v, flat, lse, dout, delta, dk, dv, _map(q), _map(k), _map(v), _map(dout), _map(dk), _map(dv),
        size, *sizes, scale, softcap, **plan.constants, **plan.options,
    )  # fmt: skip
    if extra_k is not None and extra_v is not None and not own:
        programs = q.shape[0] * q.shape[1] * -(-extra_k.shape[2] // 16)
        backward_shared[(programs,)](
            q, extra_k, extra_v, extra_bias, lse, dout, delta, dek, dev,
            _map(q), _extra(extra_k), _extra(extra_v), _extra_bias(extra_bias), _map(dout), _extra(dek), _extra(dev),
            size, *sizes, _entries(extra_k), scale, softcap, BLOCK=TILE, BLOCK_D=_channels(q), **plan.options,
        )  # fmt: skip
    if want_bias and bias is not None:
        plan = _plan(q, kernel, dilation, shift, reach=None)
        parts = q.new_empty(
            *q.shape[:2], plan.programs // (q.shape[0] * q.shape[1]), bias[0].numel(), dtype=torch.float32
        )
        backward_bias[(plan.programs,)](
            q, k, v, flat, lse, dout, delta, parts, _map(q), _map(k), _map(v), _map(dout),
            size, *sizes, scale, softcap, **plan.constants, **plan.options,
        )  # fmt: skip
        dbias.copy_(parts.sum((0, 2)).view_as(dbias))
    return room


@_attend_backward.register_fake
def _(
    dout: Tensor, dlse: Tensor | None, out: Tensor, lse: Tensor, q: Tensor, k: Tensor, v: Tensor, kernel: list[int],
    dilation: list[int], shift: bool, scale: float, softcap: float | None, bias: Tensor | None,
    extra_k: Tensor | None, extra_v: Tensor | None, extra_bias: Tensor | None, want_bias: bool, want_extra_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return _gradients(q, k, v, bias, extra_k, extra_v, extra_bias, want_bias, want_extra_bias)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, ctx.kernel, ctx.dilation, ctx.shift, ctx.scale, ctx.softcap, bias, extra_k, extra_v, extra_bias = inputs
    ctx.save_for_backward(*output, q, k, v, bias, extra_k, extra_v, extra_bias)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dout: Tensor | None, dlse: Tensor | None) -> tuple[Any, ...]:
    out, lse, q, k, v, bias, extra_k, extra_v, extra_bias = ctx.saved_tensors
    if dout is None:
        dout = torch.zeros_like(q)
    wants = (bias is not None and ctx.needs_input_grad[8], extra_bias is not None and ctx.needs_input_grad[11])
    dq, dk, dv, dbias, dek, dev, deb = _attend_backward(
        dout, dlse, out, lse, q, k, v, ctx.kernel, ctx.dilation, ctx.shift, ctx.scale, ctx.softcap, bias, extra_k,
        extra_v, extra_bias, *wants,
    )  # fmt: skip
    if wants[1]:
        deb = deb.to(extra_bias.dtype)
    extra = (None, None) if extra_k is None else (dek, dev)
    return dq, dk, dv, *(None,) * 5, dbias if wants[0] else None, *extra, deb if wants[1] else None


_attend.register_autograd(_differentiate, setup_context=_save)


def _gradients(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, extra_k: Tensor | None, extra_v: Tensor | None,
    extra_bias: Tensor | None, want_bias: bool, want_extra_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Room for the gradients; nothing where there is none to compute (an operator returns tensors only)."""
    nothing = [q.new_empty(0) for _ in range(4)]
    dbias = bias.new_empty(bias.shape) if want_bias and bias is not None else None
    dek, dev = (None if t is None else t.new_empty(t.shape) for t in (extra_k, extra_v))
    deb = None
    if extra_bias is not None and want_extra_bias:
        deb = extra_bias.new_empty(extra_bias.shape, dtype=torch.float32)
    optional = [n if t is None else t for n, t in zip(nothing, (dbias, dek, dev, deb), strict=True)]
    return _like(q), _like(k), _like(v), optional[0], optional[1], optional[2], optional[3]


def _entries(extra_k: Tensor | None) -> int:
    return 0 if extra_k is None else extra_k.shape[-2]
