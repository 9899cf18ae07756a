"""Two pointwise layers with GELU between, in runs of positions whose hidden channels stay in a core's cache."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mixlab.ops.native.passes import brought_innermost, gradients_again, run, takes

RUN_BYTES = 1 << 22  # of hidden channels
RUN_ROWS = 1024  # shorter runs cost the matrix products more than the cache gives
KEPT_BYTES = 1 << 23  # of memory for runs, twice a thread


def mlp(x: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None) -> Tensor | None:
    """``W_2 gelu(W_1 x + b_1) + b_2`` on each position, GELU in its exact form; or None where it gains nothing here.

    The activation is not kept for the backward pass but computed again beside its derivative.

    Args:
        x: ``(B, C, *spatial)``.
        w1, b1: ``(hidden, C)``, ``(hidden,)`` or None.
        w2, b2: ``(C_out, hidden)``, ``(C_out,)`` or None.

    Returns:
        ``(B, C_out, *spatial)``, channels innermost; None unless the native library takes this map (see
        :mod:`mixlab.ops.passes`) in float32.
    """
    if x.dtype is not torch.float32 or not takes(x, w1, b1, w2, b2):
        return None
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, w1, b1, w2, b2)):
        return _MLP.apply(x, w1, b1, w2, b2)
    return _forward(x, w1, b1, w2, b2, None)


def _plain(x: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None) -> Tensor:
    return F.linear(F.gelu(F.linear(x.movedim(1, -1), w1, b1)), w2, b2).movedim(-1, 1)


def _tokens(x: Tensor) -> Tensor:
    """(B, C, *spatial) with channels innermost to (rows, C), a view."""
    return x.movedim(1, -1).flatten(0, -2)


def _runs(rows: int, hidden: int) -> Iterator[slice]:
    """Runs of about equal length."""
    most = max(RUN_ROWS, RUN_BYTES // (4 * hidden))
    length = -(-rows // -(-rows // most))
    for first in range(0, rows, length):
        yield slice(first, min(first + length, rows))


class _Rooms(threading.local):
    """Memory for runs that a thread keeps: new memory of this size may come from the system page by page, each time."""

    def __init__(self) -> None:
        self.memory: list[Tensor] = []

    def get(self, index: int, rows: int, hidden: int) -> Tensor:
        """(rows, hidden) of float32, whatever is in it."""
        if 4 * rows * hidden > KEPT_BYTES:
            return torch.empty(rows, hidden)
        while len(self.memory) <= index:
            with torch.inference_mode(False):
                self.memory.append(torch.empty(KEPT_BYTES // 4))
        return self.memory[index][: rows * hidden].view(rows, hidden)


_ROOMS = _Rooms()


def _forward(x: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None, keep: Tensor | None) -> Tensor:
    """The result; ``W_1 x`` goes into ``keep`` (rows, hidden)."""
    tokens, hidden = _tokens(x), w1.shape[0]
    out = x.new_empty((x.shape[0], *x.shape[2:], w2.shape[0]))
    rows = out.view(-1, w2.shape[0])
    for part in _runs(len(tokens), hidden):
        room = _ROOMS.get(0, part.stop - part.start, hidden)
        inner = room if keep is None else keep[part]
        torch.mm(tokens[part], w1.t(), out=inner)
        run("gelu", inner, (inner, b1), (room,))
        torch.mm(room, w2.t(), out=rows[part])
        if b2 is not None:
            rows[part].add_(b2)
    return out.movedim(-1, 1)


class _MLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None) -> Tensor:
        inner = x.new_empty(x.numel() // x.shape[1], w1.shape[0])
        out = _forward(x, w1, b1, w2, b2, inner)
        ctx.save_for_backward(x, w1, b1, w2, b2, inner)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w1, b1, w2, b2, inner = ctx.saved_tensors
        if torch.is_grad_enabled() or not takes(x):
            return tuple(gradients_again(_plain, (x, w1, b1, w2, b2), grad))
        tokens, rows, hidden = _tokens(x), _tokens(brought_innermost(grad)), w1.shape[0]
        turned = len(rows) >= 2 * hidden  # the product is faster that way, but the result has to be turned back
        dx, dw2, db1 = torch.empty_like(x), torch.empty_like(w2), None
        dw1 = x.new_empty(w1.shape[::-1] if turned else w1.shape)
        for part in _runs(len(rows), hidden):
            derivative, activation = (_ROOMS.get(i, part.stop - part.start, hidden) for i in range(2))
            torch.mm(rows[part], w2, out=derivative)
            db = None if b1 is None else torch.empty_like(b1)
            run("gelu_backward", derivative, (inner[part], b1, derivative), (derivative, db, activation))
            torch.mm(derivative, w1, out=_tokens(dx)[part])
            left, right = (tokens[part], derivative) if turned else (derivative, tokens[part])
            beta = 0 if part.start == 0 else 1  # 0: whatever is in the result does not count
            dw1.addmm_(left.t(), right, beta=beta)
            dw2.addmm_(rows[part].t(), activation, beta=beta)
            db1 = db if db1 is None or db is None else db1.add_(db)
        return dx, dw1.t().contiguous() if turned else dw1, db1, dw2, None if b2 is None else rows.sum(0)
