"""Local attention: every query attends to the window around it, and to extra keys, in one softmax.

For query ``i`` with neighbours ``j`` in its window and extra keys ``e`` (a class token, registers, pooled keys)::

    s_ij = cap(scale q_i · k_j + bias[j - i])        s_ie = cap(scale q_i · k_e + extra_bias_ie)
    out_i = sum_j p_ij v_j + sum_e p_ie v_e          p_i = softmax over all j and e together
    lse_i = log(sum_j exp s_ij + sum_e exp s_ie)     cap(s) = softcap tanh(s / softcap), or s

``border="clip"`` centres the window; neighbours outside the image do not exist: a corner of a 3x3 window has 4 keys.
``border="shift"`` moves the window inward along each axis, so that every query keeps all its keys, as neighbourhood
attention does (arXiv:2204.07143); with a dilation, among positions of the same remainder (arXiv:2209.15001). A window
longer than an axis sees all of it.
"""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor

from mixlab.errors import Quoted, expected, unknown
from mixlab.ops import local_attention_native as native
from mixlab.ops import local_attention_pure as pure
from mixlab.ops.local_attention_choice import (
    BACKENDS,
    Choice,
    choose,
    choose_path,
    computed_pairs,
    refused,
    run,
)
from mixlab.ops.local_attention_problem import check_window, make_problem
from mixlab.ops.local_attention_reference import reference_aggregate
from mixlab.ops.neighbours import Window
from mixlab.ops.windows import PerAxis

__all__ = ["BACKENDS", "Choice", "choose_path", "computed_pairs", "local_aggregate", "local_attention"]
AGGREGATE = "local_aggregate"
AGGREGATE_BACKENDS = ("auto", "reference", "native", "pure")


@overload
def local_attention(
    q: Tensor, k: Tensor, v: Tensor, kernel_size: PerAxis, *, dilation: PerAxis = 1, border: str = "clip",
    bias: Tensor | None = None, scale: float | None = None, softcap: float | None = None,
    extra_kv: tuple[Tensor, Tensor] | None = None, extra_bias: Tensor | None = None,
    return_lse: Literal[False] = False, backend: str = "auto", explain: Literal[False] = False,
) -> Tensor: ...  # fmt: skip


@overload
def local_attention(
    q: Tensor, k: Tensor, v: Tensor, kernel_size: PerAxis, *, dilation: PerAxis = 1, border: str = "clip",
    bias: Tensor | None = None, scale: float | None = None, softcap: float | None = None,
    extra_kv: tuple[Tensor, Tensor] | None = None, extra_bias: Tensor | None = None,
    return_lse: bool = False, backend: str = "auto", explain: bool = False,
) -> Any: ...  # fmt: skip


def local_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kernel_size: PerAxis,
    *,
    dilation: PerAxis = 1,
    border: str = "clip",
    bias: Tensor | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    extra_kv: tuple[Tensor, Tensor] | None = None,
    extra_bias: Tensor | None = None,
    return_lse: bool = False,
    backend: str = "auto",
    explain: bool = False,
) -> Any:
    """Attention within windows, with gradients to every tensor given.

    Scores, softmax and log-sum-exp are float32 for half inputs. Under autocast the operation keeps the type of its
    inputs.

    Args:
        q, k, v: ``(B, heads, head_dim, *spatial)`` with one to three spatial axes, one shape.
        kernel_size: odd window, an int or one per axis in ``(D, H, W)`` order.
        dilation: distance between neighbours in a window, likewise.
        border: ``clip`` or ``shift``, see above.
        bias: added to the scores of the window: ``(heads, *kernel)`` by offset for ``clip``, ``(heads, *(2 kernel -
            1))`` by distance for ``shift``, where entry ``kernel - 1`` is the query itself. Distances count in steps of
            the dilation.
        scale: factor on the scores; ``head_dim ** -0.5`` by default.
        softcap: bound of the scores, ``softcap tanh(score / softcap)``, biases included.
        extra_kv: keys and values outside the window, ``(B, heads, E, head_dim)``, seen by all queries, or
            ``(B, heads, *spatial, E, head_dim)``.
        extra_bias: added to their scores; broadcasts to ``(B, heads, *spatial, E)``.
        return_lse: return the logarithm of the softmax's denominator as well.
        backend: ``reference`` (the definition), ``native`` (the fused CPU kernel), ``triton`` (the fused GPU kernel),
            ``flex`` (PyTorch's flex_attention), ``natten`` (NATTEN's kernels, shifted borders only), ``pure`` (the
            fastest PyTorch-only path for the shape) or one of its paths ``dense``, ``bands``, ``shift``. ``auto`` takes
            the fastest of native, triton and pure.
        explain: return the choice of the backend, with its reasons, as well.

    Returns:
        ``(B, heads, head_dim, *spatial)``; with ``return_lse`` or ``explain`` a tuple of it, then
        ``(B, heads, *spatial)``, then the :class:`Choice`.

    Raises:
        UserError: shapes do not fit together, a kernel is even, an option is unknown, or a backend asked for by name
            cannot compute this.
    """
    problem = make_problem(
        q, k, v, kernel_size, dilation, border, bias, scale, softcap, extra_kv, extra_bias, return_lse
    )
    choice = choose(problem, backend)
    if _autocast(q):
        with torch.autocast(q.device.type, enabled=False):  # it would bring scores back to a half type
            out, lse = run(problem, choice)
    else:
        out, lse = run(problem, choice)
    if not (return_lse or explain):
        return out
    return (out, *([lse] if return_lse else []), *([choice] if explain else []))


def local_aggregate(
    weights: Tensor,
    v: Tensor,
    kernel_size: PerAxis,
    *,
    dilation: PerAxis = 1,
    border: str = "clip",
    backend: str = "auto",
) -> Tensor:
    """``y_i = sum_j weights_ij v_j`` over the window's neighbours ``j``: weights that need no softmax.

    Args:
        weights: ``(B, heads, *spatial, K)`` for the ``K`` places of the window, row-major. Those of neighbours that do
            not exist count nothing.
        v: ``(B, heads, head_dim, *spatial)``.
        kernel_size, dilation, border: as in :func:`local_attention`; shifted windows have their own ``K`` keys in
            row-major order.
        backend: ``reference``, ``native``, ``pure`` or ``auto``.

    Returns:
        ``(B, heads, head_dim, *spatial)``.

    Raises:
        UserError: shapes do not fit together, or an option is unknown.
    """
    window = check_window(v.ndim - 3, kernel_size, dilation, border, AGGREGATE)
    if backend not in AGGREGATE_BACKENDS:
        raise unknown(f"{AGGREGATE} backend", backend, AGGREGATE_BACKENDS)
    places = 1
    for k in window.kernel:
        places *= k
    if weights.ndim != v.ndim or weights.shape[:2] != v.shape[:2] or weights.shape[2:] != (*v.shape[3:], places):
        got = Quoted(f"{tuple(weights.shape)} with v {tuple(v.shape)}")
        raise expected(f"{AGGREGATE} weights", f"shape (B, heads, *spatial, {places})", got)
    dtype = torch.promote_types(weights.dtype, v.dtype)
    weights, v = weights.to(dtype), v.to(dtype)
    if _autocast(v):
        with torch.autocast(v.device.type, enabled=False):
            return _aggregate(weights, v, window, backend)
    return _aggregate(weights, v, window, backend)


def _aggregate(weights: Tensor, v: Tensor, window: Window, backend: str) -> Tensor:
    if backend == "reference":
        return reference_aggregate(weights, v, window)
    if backend == "pure" or (backend == "auto" and torch.compiler.is_exporting()):
        return pure.aggregate(weights, v, window)
    reason = native.unsupported_aggregate(v, window)
    if backend == "native":
        refused(backend, reason)
    return pure.aggregate(weights, v, window) if reason is not None else native.aggregate(weights, v, window)


def _autocast(t: Tensor) -> bool:
    return t.device.type != "meta" and torch.is_autocast_enabled(t.device.type)
