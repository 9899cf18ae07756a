"""Scores of pairs of positions and what follows from them, in float32."""

from __future__ import annotations

import os

import triton
import triton.language as tl

from mixlab.ops.triton_local_attention.geometry import bias_entry

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
LOG2E = tl.constexpr(1.4426950408889634)
MASKED = tl.constexpr(-1e30)  # finite, so that no difference of masked scores is undefined


@triton.jit
def product(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    """``a @ b`` in float32."""
    if INTERPRETED and a.dtype == tl.bfloat16:  # the interpreter would multiply the bits
        c = tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    else:
        c = tl.dot(a, b, input_precision="ieee")
    return c


@triton.jit
def scores(
    a: tl.tensor, b: tl.tensor, query: tl.tuple, key: tl.tuple, seen: tl.tensor, bias: tl.tensor, scale: tl.tensor,
    softcap: tl.tensor, KERNEL: tl.constexpr, SHIFT: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Of vectors ``a`` (rows) and ``b`` (columns), one queries and the other keys; ``MASKED`` where not seen."""
    s = product(a, tl.trans(b)) * scale
    if bias is not None:
        s += tl.load(bias + bias_entry(query, key, KERNEL, SHIFT), mask=seen, other=0.0).to(tl.float32)
    if softcap is not None:
        s = cap(s, softcap)
    return tl.where(seen, s, MASKED)


@triton.jit
def shared_scores(
    a: tl.tensor, b: tl.tensor, seen: tl.tensor, extra_bias: tl.tensor, offset: tl.tensor, scale: tl.tensor,
    softcap: tl.tensor,
) -> tl.tensor:  # fmt: skip
    """The same of queries and extra keys, whose biases lie at offsets."""
    s = product(a, tl.trans(b)) * scale
    if extra_bias is not None:
        s += tl.load(extra_bias + offset, mask=seen, other=0.0).to(tl.float32)
    if softcap is not None:
        s = cap(s, softcap)
    return tl.where(seen, s, MASKED)


@triton.jit
def own_scores(
    q: tl.tensor, k: tl.tensor, there: tl.tensor, extra_bias: tl.tensor, offset: tl.tensor, scale: tl.tensor,
    softcap: tl.tensor,
) -> tl.tensor:  # fmt: skip
    """Of every query and one key of its own: one a row."""
    s = tl.sum(q.to(tl.float32) * k.to(tl.float32), 1) * scale
    if extra_bias is not None:
        s += tl.load(extra_bias + offset, mask=there, other=0.0).to(tl.float32)
    if softcap is not None:
        s = cap(s, softcap)
    return s


@triton.jit
def gradient(
    s: tl.tensor, seen: tl.tensor, p: tl.tensor, dp: tl.tensor, delta: tl.tensor, softcap: tl.tensor
) -> tl.tensor:
    """Of the scores before the soft cap."""
    ds = p * (dp - delta)
    if softcap is not None:
        part = tl.where(seen, s, 0.0) / softcap
        ds = ds * (1 - part * part)
    return tl.where(seen, ds, 0.0)


@triton.jit
def exp(x: tl.tensor) -> tl.tensor:
    """Through the hardware's power of two."""
    return tl.exp2(x * LOG2E)


@triton.jit
def cap(scores: tl.tensor, softcap: tl.tensor) -> tl.tensor:
    """``softcap tanh(scores / softcap)``."""
    return softcap * (1 - 2 / (tl.exp2(scores * (2 * LOG2E / softcap)) + 1))


@triton.jit
def weighted(weights: tl.tensor, values: tl.tensor, total: tl.tensor, SMALL: tl.constexpr) -> tl.tensor:
    """``total + weights @ values`` for float32 weights, rounded to the values' type.

    Unless they are ``SMALL`` (probabilities), weights may exceed float16's range. TF32 has float16's digits and
    float32's range.
    """
    if values.dtype == tl.float16 and not SMALL:
        total = tl.dot(weights, values.to(tl.float32), total, input_precision="tf32")
    elif INTERPRETED and values.dtype == tl.bfloat16:
        total = tl.dot(weights.to(tl.bfloat16).to(tl.float32), values.to(tl.float32), total, input_precision="ieee")
    else:
        total = tl.dot(weights.to(values.dtype), values, total, input_precision="ieee")
    return total
