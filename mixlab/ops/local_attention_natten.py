"""Local attention by NATTEN's CUDA kernels, for windows that shift inward at borders; an optional library.

The calls follow the functional interface of NATTEN 0.20 and newer: ``na1d``, ``na2d`` and ``na3d`` take
``(B, *spatial, heads, d)``, ``kernel_size``, ``dilation``, ``scale`` and extra keys ``(B, E, heads, d)``. It has no
biases and no soft cap, and its log-sum-exp is not asked for, as older versions do not give it and none says that it
carries gradients. Tested with a stand-in of the same interface only.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re

import torch
from torch import Tensor

from mixlab.ops.local_attention_problem import Problem

OLDEST = (0, 20)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
FUNCTIONS = {1: "na1d", 2: "na2d", 3: "na3d"}


def unavailable() -> str | None:
    """Why NATTEN cannot run on this machine, or None."""
    try:
        version = importlib.metadata.version("natten")
    except importlib.metadata.PackageNotFoundError:
        return "NATTEN is not installed"
    if tuple(int(n) for n in re.findall(r"\d+", version)[:2]) < OLDEST:
        return f"it takes NATTEN {'.'.join(map(str, OLDEST))} or newer, not {version}"
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    return None


def unsupported(p: Problem) -> str | None:
    """Why NATTEN cannot compute this, or None."""
    if p.q.device.type != "cuda":
        return "it runs on CUDA devices only"
    return unavailable() or not_its_kind(p)


def not_its_kind(p: Problem) -> str | None:
    """Why NATTEN has no kernel for a problem, wherever it is, or None."""
    given = {
        "windows that are clipped at the border": p.window.border != "shift",
        "a bias": p.bias is not None or p.extra_bias is not None,
        "a soft cap": p.softcap is not None,
        "extra keys of every query": not p.shared_extra,
        "the log-sum-exp": p.needs_lse,
        "an empty batch": p.q.shape[0] == 0,
        "windows larger than the grid": not p.window.keeps_all(p.size),
        "head sizes that are no multiple of 8": p.q.shape[2] % 8 != 0,
        f"{str(p.q.dtype).removeprefix('torch.')}": p.q.dtype not in DTYPES,
        "a scale of zero, which it reads as the default": p.scale == 0,
    }
    missing = [name for name, there in given.items() if there]
    return f"it does not support {', '.join(missing)}" if missing else None


def run(p: Problem) -> tuple[Tensor, None]:
    """Output ``(B, heads, d, *spatial)``; no log-sum-exp."""
    attend = getattr(importlib.import_module("natten.functional"), FUNCTIONS[len(p.size)])
    extra = {}
    if p.extra_k is not None and p.extra_v is not None:
        extra = {"additional_keys": p.extra_k.transpose(1, 2), "additional_values": p.extra_v.transpose(1, 2)}
    q, k, v = (t.permute(0, *range(3, t.ndim), 1, 2).contiguous() for t in (p.q, p.k, p.v))  # (B, *spatial, heads, d)
    out = attend(q, k, v, kernel_size=p.window.kernel, dilation=p.window.dilation, scale=p.scale, **extra)
    return out.permute(0, out.ndim - 2, out.ndim - 1, *range(1, out.ndim - 2)), None
