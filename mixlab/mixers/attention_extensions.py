"""What local attention can have beside windows: slopes, normalised queries and keys, global tokens."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mixlab.errors import Quoted, expected
from mixlab.ops.local_attention_problem import wide
from mixlab.ops.local_attention_reference import cap
from mixlab.ops.neighbours import Window
from mixlab.ops.size_cache import size_cached
from mixlab.ops.windows import clipped_pairs

SLOPE = 0.1
"""The study's."""
EPS = 1e-6


@size_cached()
def slope_bias(heads: int, window: Window, slope: float, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(heads, \\*window.bias_shape()): ``slope`` times the signed offset from query to key, in positions.

    Heads take the directions +x, -x, +y, -y, +z, -z in turn, as many as the grid has; x is the last axis.
    """
    shape = window.bias_shape()
    rows = []
    for head in range(heads):
        turn = head % (2 * len(shape))
        axis = len(shape) - 1 - turn // 2
        steps = torch.arange(shape[axis], device=device) - shape[axis] // 2
        along = [1] * len(shape)
        along[axis] = -1
        weight = (slope if turn % 2 == 0 else -slope) * window.dilation[axis]
        rows.append((steps.to(dtype) * weight).view(along).expand(shape))
    return torch.stack(rows)


def unit_rms(x: Tensor) -> Tensor:
    """``x / sqrt(mean(x²))`` over the channels of each head, ``(B, heads, d, ...)``; computed in float32 at least."""
    y = x.to(wide(x.dtype))
    return (y * (y.square().mean(dim=2, keepdim=True) + EPS).rsqrt()).to(x.dtype)


def attend_everything(q: Tensor, k: Tensor, v: Tensor, near: tuple[Tensor, Tensor], softcap: float | None) -> Tensor:
    """Queries of global tokens over all positions and all tokens, in one softmax.

    Args:
        q: queries of the tokens, ``(B, heads, G, d)``.
        k, v: keys and values of the map, ``(B, heads, d, *spatial)``.
        near: keys and values of the tokens, ``(B, heads, G, d)``.
        softcap: bound of the scores, or None.

    Returns:
        ``(B, heads, G, d)``.
    """
    positions = math.prod(k.shape[3:])
    q = q * q.shape[3] ** -0.5
    scores = torch.cat([q @ k.flatten(3), q @ near[0].transpose(2, 3)], dim=3)  # (B, heads, G, N + G)
    weights = cap(scores.to(wide(scores.dtype)), softcap).softmax(dim=3).to(v.dtype)
    return weights[..., :positions] @ v.flatten(3).transpose(2, 3) + weights[..., positions:] @ near[1]


def window_pairs(size: tuple[int, ...], window: Window) -> int:
    """Number of (query, key) pairs of a window on a grid, for both rules at the border."""
    if window.border == "clip":
        return clipped_pairs(size, window.kernel, window.dilation)
    return math.prod(_shifted_pairs(n, k, d) for n, k, d in zip(size, window.kernel, window.dilation, strict=True))


def _shifted_pairs(n: int, kernel: int, dilation: int) -> int:
    """Along one axis: positions of the same remainder see ``kernel`` of each other, or all of them."""
    groups = [-(-(n - rest) // dilation) for rest in range(min(dilation, n))]
    return sum(length * min(kernel, length) for length in groups)


def check_slopes(slopes: bool | float, where: str) -> float:
    """The slope: the study's for True, 0 for False.

    Raises:
        UserError: not a finite number.
    """
    if isinstance(slopes, bool):
        return SLOPE if slopes else 0.0
    if not isinstance(slopes, int | float) or not math.isfinite(slopes):
        raise expected(f"{where} slopes", "true, false or a finite number", slopes, f"slopes={SLOPE}")
    return float(slopes)


def check_softcap(softcap: float | None, where: str) -> float | None:
    """A bound of scores: positive, or None.

    Raises:
        UserError: anything else.
    """
    if softcap is None:
        return None
    if isinstance(softcap, bool) or not isinstance(softcap, int | float) or not 0 < softcap < math.inf:
        raise expected(f"{where} softcap", "a positive number or None", softcap, "softcap=30")
    return float(softcap)


def check_flag(value: bool, what: str) -> bool:
    """True or False, else a UserError: a number would be taken for True."""
    if not isinstance(value, bool):
        raise expected(what, "true or false", value)
    return value


def check_backend(backend: str, given: dict[str, bool], where: str) -> None:
    """Refuse at once what a backend asked for by name will refuse when it runs.

    Args:
        backend: of :func:`mixlab.ops.local_attention`.
        given: whether an option is in use, by its name in words.
        where: for the message.

    Raises:
        UserError: the backend has not the options in use.
    """
    lacks = {"bands": ("a shifted border", "a bias", "a soft cap"), "natten": ("a bias", "a soft cap")}
    missing = [name for name in lacks.get(backend, ()) if given[name]]
    if missing:
        got = Quoted(f"backend={backend!r} with {' and '.join(missing)}")
        raise expected(f"{where} backend", "one that computes every option", got, "backend='auto'")
