"""Local attention by PyTorch's flex_attention: an option to compare with, on positions in raster order.

On CUDA it is compiled, once for each grid, window and type (many seconds each). On a CPU it is called uncompiled, which
materialises the scores of all pairs and has no backward pass: for checks only.

Lengths are padded to a multiple of :data:`BLOCK`, the block of its masks. A padded query sees itself, and no true query
sees padding. So every row of the generated kernels, backward included, has a key and a defined log-sum-exp; rows
without them were the likeliest source of NaN in compiled gradients.
"""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mixlab.ops.local_attention_problem import Problem, wants_gradient, wide
from mixlab.ops.local_attention_reference import cap
from mixlab.ops.neighbours import Ints, Window

BLOCK = 128
RECOMPILE_LIMIT = 256  # grids, windows and types of one process; beyond it an error, not a slow fallback


def unavailable() -> str | None:
    """None: every PyTorch that mixlab runs on has it."""
    return None


def unsupported(p: Problem) -> str | None:
    """Why flex_attention cannot compute this, or None."""
    device = p.q.device.type
    if device not in ("cpu", "cuda"):
        return "it runs on CUDA devices, and forward on CPUs"
    if torch.compiler.is_compiling():
        return "it compiles itself and is not called while a graph is traced"
    if p.q.shape[0] == 0:
        return "an empty batch"
    if p.extra_k is not None:
        return "extra keys"
    if device == "cpu" and wants_gradient(p):
        return "it has no backward pass on a CPU"
    if device == "cuda" and p.q.dtype == torch.float64:
        return "it is compiled for float32, float16 and bfloat16, not float64"
    if device == "cuda" and p.q.shape[2] < 16:
        return f"it is compiled for head sizes from 16, not {p.q.shape[2]}"
    return None


def run(p: Problem) -> tuple[Tensor, Tensor]:
    """Output ``(B, heads, d, *spatial)`` and log-sum-exp ``(B, heads, *spatial)``."""
    size, dtype, tokens = p.size, p.q.dtype, math.prod(p.size)
    compiled = p.q.device.type == "cuda"
    if not compiled:
        p = p.to(wide(dtype))  # uncompiled scores have the inputs' type
    padding = padded_length(tokens) - tokens
    q, k, v = (F.pad(t.flatten(3).transpose(2, 3), (0, 0, 0, padding)) for t in (p.q, p.k, p.v))  # (B, heads, N', d)
    arguments = (q, k, v, p.bias, block_mask(size, p.window, p.q.device), size, p.window, p.scale, p.softcap)
    if compiled:
        with torch._dynamo.config.patch(recompile_limit=RECOMPILE_LIMIT):
            out, lse = _compiled()(*arguments)
    else:
        with warnings.catch_warnings():  # that it is not compiled is what the docstring says
            warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
            out, lse = _attend(*arguments)
    out = out[:, :, :tokens].transpose(2, 3).reshape(*p.q.shape).to(dtype)
    return out, lse[:, :, :tokens].unflatten(2, size)


def padded_length(tokens: int) -> int:
    """The next multiple of :data:`BLOCK`."""
    return math.ceil(tokens / BLOCK) * BLOCK


@functools.lru_cache(maxsize=32)
def block_mask(size: Ints, window: Window, device: torch.device) -> Any:
    """Which blocks of queries meet which blocks of keys; of size and window only, shared by batch and heads."""
    from torch.nn.attention.flex_attention import create_block_mask

    length = padded_length(math.prod(size))
    with torch.inference_mode(False), torch.no_grad():
        return create_block_mask(functools.partial(sees, size, window), None, None, length, length, device=str(device))


def sees(size: Ints, window: Window, _batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """Whether a query sees a key; positions in raster order, those beyond the grid are padding."""
    tokens = math.prod(size)
    near = (query < tokens) & (key < tokens)
    for n, k, step, i, j in _axes(size, window, query, key):
        if window.border == "clip":
            first = i // step - k // 2
        else:
            length = (n - i % step + step - 1) // step  # positions with the query's remainder
            first = torch.minimum(i // step - k // 2, length - k).clamp(min=0)
        place = j // step - first
        near = near & (i % step == j % step) & (place >= 0) & (place < k)
    return near | ((query >= tokens) & (query == key))


def _bias_entry(size: Ints, window: Window, query: Tensor, key: Tensor) -> Tensor:
    """Which entry of a flat bias a pair has; some entry where the query does not see the key."""
    entry = torch.zeros_like(query)
    for (_, _, step, i, j), width, centre in zip(
        _axes(size, window, query, key), window.bias_shape(), window.centre(), strict=True
    ):
        entry = entry * width + (j // step - i // step + centre).clamp(0, width - 1)
    return entry


def _axes(size: Ints, window: Window, query: Tensor, key: Tensor) -> list[tuple[int, int, int, Tensor, Tensor]]:
    """For each axis its length, kernel and dilation, and where query and key are on it."""
    found, inner = [], math.prod(size)
    for n, k, step in zip(size, window.kernel, window.dilation, strict=True):
        inner //= n
        found.append((n, k, step, query // inner % n, key // inner % n))
    return found


def _attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, mask: Any, size: Ints, window: Window, scale: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    from torch.nn.attention.flex_attention import AuxRequest, flex_attention

    flat = None if bias is None else bias.flatten(1)

    def score(s: Tensor, _batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        if flat is not None:
            s = s + flat[head, _bias_entry(size, window, query, key)]
        return cap(s, softcap)

    plain = flat is None and softcap is None
    out, aux = flex_attention(
        q, k, v, score_mod=None if plain else score, block_mask=mask, scale=scale, return_aux=AuxRequest(lse=True)
    )
    assert aux.lse is not None, "asked for"
    return out, aux.lse


@functools.cache
def _compiled() -> Any:
    return torch.compile(_attend, dynamic=False, fullgraph=True)
