"""A checked problem of local attention, as every backend gets it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mixlab.errors import Quoted, expected
from mixlab.ops.neighbours import BORDERS, Ints, Window
from mixlab.ops.windows import PerAxis, check_spatial_dims, odd_kernel, per_axis

WHERE = "local_attention"


class Problem(NamedTuple):
    """What to compute.

    ``q, k, v`` are ``(B, heads, d, *spatial)``; ``bias`` is ``(heads, *window.bias_shape())``; ``extra_k, extra_v`` are
    ``(B, heads, E, d)`` or ``(B, heads, *spatial, E, d)``; ``extra_bias`` is ``(1 or B, 1 or heads, *spatial, E)`` with
    every axis there, of size one where it broadcasts.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    window: Window
    bias: Tensor | None
    scale: float
    softcap: float | None
    extra_k: Tensor | None
    extra_v: Tensor | None
    extra_bias: Tensor | None
    needs_lse: bool

    @property
    def size(self) -> Ints:
        """The grid."""
        return tuple(self.q.shape[3:])

    @property
    def shared_extra(self) -> bool:
        """All queries see the same extra keys, or there are none."""
        return self.extra_k is None or self.extra_k.ndim == 4

    def to(self, dtype: torch.dtype) -> Problem:
        """All tensors in another type."""
        names = ("q", "k", "v", "bias", "extra_k", "extra_v", "extra_bias")
        tensors = {n: t.to(dtype) for n in names if isinstance(t := getattr(self, n), Tensor) and t.dtype != dtype}
        return self._replace(**tensors) if tensors else self  # type: ignore[arg-type]


def wants_gradient(p: Problem) -> bool:
    """Some tensor's gradient will be computed."""
    if not torch.is_grad_enabled():
        return False
    others = (p.bias, p.extra_k, p.extra_v, p.extra_bias)
    if p.q.requires_grad or p.k.requires_grad or p.v.requires_grad:
        return True
    return any(t is not None and t.requires_grad for t in others)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type of scores, softmax and log-sum-exp: never narrower than float32."""
    return torch.promote_types(dtype, torch.float32)


def check_window(spatial_dims: int, kernel_size: PerAxis, dilation: PerAxis, border: str, where: str) -> Window:
    """A window from what the user gave, else a UserError."""
    plain = type(kernel_size) is type(dilation) is int and type(border) is str
    if not plain or torch.compiler.is_compiling():
        return _check_window(spatial_dims, kernel_size, dilation, border, where)
    key = spatial_dims, kernel_size, dilation, border
    if key not in _WINDOWS:  # found sound before: looking again is Python that costs more than the kernel on small maps
        _WINDOWS[key] = _check_window(spatial_dims, kernel_size, dilation, border, where)
    return _WINDOWS[key]


_WINDOWS: dict[tuple[int, PerAxis, PerAxis, str], Window] = {}


def _check_window(spatial_dims: int, kernel_size: PerAxis, dilation: PerAxis, border: str, where: str) -> Window:
    axes = check_spatial_dims(spatial_dims, where)
    if border not in BORDERS:
        raise expected(f"{where} border", f"one of {', '.join(BORDERS)}", border)
    return Window(odd_kernel(kernel_size, axes, where), per_axis(dilation, axes, f"{where} dilation"), border)


def make_problem(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kernel_size: PerAxis,
    dilation: PerAxis,
    border: str,
    bias: Tensor | None,
    scale: float | None,
    softcap: float | None,
    extra_kv: tuple[Tensor, Tensor] | None,
    extra_bias: Tensor | None,
    needs_lse: bool,
) -> Problem:
    """Check everything and bring q, k, v and the extra keys to one type.

    Raises:
        UserError: see :func:`mixlab.ops.local_attention.local_attention`.
    """
    window = check_window(q.ndim - 3, kernel_size, dilation, border, WHERE)
    if not q.shape == k.shape == v.shape:
        got = Quoted(f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}")
        raise expected(WHERE, "q, k and v of one shape (B, heads, head_dim, *spatial)", got)
    traced = torch.compiler.is_compiling()  # there a comparison of dynamic sizes would fix them
    if not traced and 0 in q.shape[1:]:
        raise expected(WHERE, "at least one head, channel and position", Quoted(str(tuple(q.shape))))
    if softcap is not None and not softcap > 0:
        raise expected(f"{WHERE} softcap", "a positive number or None", softcap)
    if bias is not None and tuple(bias.shape) != (q.shape[1], *window.bias_shape()):
        want = f"shape {(q.shape[1], *window.bias_shape())} for border={border!r}"
        raise expected(f"{WHERE} bias", want, Quoted(str(tuple(bias.shape))))
    dtype = q.dtype
    if not (dtype is k.dtype is v.dtype):
        dtype = torch.promote_types(torch.promote_types(dtype, k.dtype), v.dtype)
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    if not dtype.is_floating_point:
        raise expected(WHERE, "floating-point q, k and v", dtype)
    extra_k, extra_v = (None, None) if extra_kv is None else extra_kv
    if extra_k is None or extra_v is None:
        if extra_bias is not None:
            raise expected(f"{WHERE} extra_bias", "None without extra_kv", Quoted("a tensor"))
    else:
        if not traced:
            check_extra(q, extra_k, extra_v, extra_bias)
        extra_k, extra_v = extra_k.to(dtype), extra_v.to(dtype)
        if extra_bias is not None:
            extra_bias = extra_bias[(None,) * (q.ndim - extra_bias.ndim)]  # (B, heads, *spatial, E) has as many axes
    scale = q.shape[2] ** -0.5 if scale is None else scale
    return Problem(q, k, v, window, bias, scale, softcap, extra_k, extra_v, extra_bias, needs_lse)


def check_extra(q: Tensor, extra_k: Tensor, extra_v: Tensor, extra_bias: Tensor | None) -> None:
    """Shapes of the extra keys, else a UserError."""
    batch, heads, d, *size = q.shape
    entries = extra_k.shape[-2] if extra_k.ndim > 3 else 0
    allowed = ((batch, heads, entries, d), (batch, heads, *size, entries, d))
    if extra_k.shape != extra_v.shape or tuple(extra_k.shape) not in allowed:
        got = Quoted(f"keys {tuple(extra_k.shape)}, values {tuple(extra_v.shape)} with q {tuple(q.shape)}")
        raise expected(f"{WHERE} extra_kv", "two of (B, heads, E, head_dim) or (B, heads, *spatial, E, head_dim)", got)
    if extra_bias is None:
        return
    want = (batch, heads, *size, entries)
    aligned = (1,) * (len(want) - extra_bias.ndim) + tuple(extra_bias.shape)
    if len(aligned) != len(want) or any(a not in (1, w) for a, w in zip(aligned, want, strict=True)):
        raise expected(
            f"{WHERE} extra_bias", f"a shape that broadcasts to {want}", Quoted(str(tuple(extra_bias.shape)))
        )
