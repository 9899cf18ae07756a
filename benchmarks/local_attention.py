"""Local attention beside full attention, dense masked attention and depthwise convolution.

    python benchmarks/local_attention.py [--repeats 5] [--layout planar|last] [--isa avx2] [--only 2d,3d,...]

The table of docs/performance.md. fp32, batch 8, head size 16, one thread, CPU time. A cell is the median over repeats
of the median of a block of calls of at least 0.4 s; all calls of a row are measured in turn in one process. Full and
dense attention get contiguous tokens, the layout that they are fastest with, but for the smallest grid, where all start
from one channels-last map and give a map, as in a model. Freed memory is kept. Ratios: `forward, forward and backward`.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from timing import Calls, keep_freed_memory, side_by_side
from torch import Tensor

from mixlab.ops import local_attention
from mixlab.ops import local_attention_native as native

HEADS = {56: 4, 28: 8, 14: 20, 7: 32}  # of PoolFormer-S12's stages at head size 16
GOALS = {(56, 7): ("70, 60", "45, 45"), (56, 3): ("180, 150", "100, 100"), (28, 7): ("14, 13", "9, 9"),
         (14, 7): ("5, 4", "2.8, 2.6")}  # fmt: skip


def maps(size: tuple[int, ...], heads: int, layout: str = "planar", batch: int = 8, d: int = 16) -> tuple[Tensor, ...]:
    """q, k, v ``(batch, heads, d, *size)``; ``last``: views of one channels-last map, as a linear layer gives them."""
    if layout == "planar":
        return tuple(torch.randn(batch, heads, d, *size, requires_grad=True) for _ in range(3))
    x = torch.randn(batch, *size, 3, heads, d).movedim((-3, -2, -1), (0, 2, 3))
    return tuple(t.requires_grad_() for t in x.unbind(0))


def tokens(size: tuple[int, ...], heads: int, batch: int = 8, d: int = 16) -> tuple[Tensor, ...]:
    """q, k, v ``(batch, heads, N, d)``, contiguous."""
    return tuple(torch.randn(batch, heads, math.prod(size), d, requires_grad=True) for _ in range(3))


def window_mask(size: tuple[int, ...], k: int) -> Tensor:
    """(N, N) bool"""
    at = torch.stack(torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij"), dim=-1).reshape(-1, len(size))
    return ((at[:, None] - at[None]).abs() <= k // 2).all(dim=-1)


def attention_calls(size: tuple[int, ...], heads: int, k: int, layout: str, batch: int = 8, d: int = 16) -> Calls:
    """Ours by the dispatcher, and full attention."""
    qkv, seen = maps(size, heads, layout, batch, d), tokens(size, heads, batch, d)
    return {
        "auto": (lambda: local_attention(*qkv, k), qkv),
        "full": (lambda: F.scaled_dot_product_attention(*seen), seen),
    }


def dense_call(
    size: tuple[int, ...], heads: int, k: int, d: int = 16
) -> tuple[Callable[[], Tensor], tuple[Tensor, ...]]:
    """Full attention with the window as its mask."""
    seen, mask = tokens(size, heads, d=d), window_mask(size, k)
    return lambda: F.scaled_dot_product_attention(*seen, attn_mask=mask), seen


def from_maps(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Full attention with our interface, ``(B, heads, d, *size)`` to the same; channels-last maps are not copied."""
    rows = (t.flatten(3).transpose(2, 3) for t in (q, k, v))
    return F.scaled_dot_product_attention(*rows, attn_mask=mask).transpose(2, 3).reshape(q.shape)


def conv_calls(size: tuple[int, ...], channels: int, k: int, batch: int = 8) -> Calls:
    """Depthwise convolution in both memory orders."""
    conv = F.conv2d if len(size) == 2 else F.conv3d
    order = torch.channels_last if len(size) == 2 else torch.channels_last_3d
    calls = {}
    for name, memory in (("conv", torch.contiguous_format), ("conv last", order)):
        image = torch.randn(batch, channels, *size).to(memory_format=memory).requires_grad_()
        weight = torch.randn(channels, 1, *(k,) * len(size), requires_grad=True)
        calls[name] = (partial(conv, image, weight, padding=k // 2, groups=channels), (image, weight))
    return calls


def row(
    name: str, values: tuple[float, ...], goal: str = "", minimum: str = "", note: str = "", form: str = ".1f"
) -> None:
    cell = ", ".join(f"{v:{form}}" for v in values)
    print(f"| {name} | {cell} | {goal} | {minimum} | {note} |", flush=True)


def ratios(times: dict[tuple[str, bool], float], over: str, under: str) -> tuple[float, float]:
    return times[over, False] / times[under, False], times[over, True] / times[under, True]


def over_best(times: dict[tuple[str, bool], float], *others: str) -> tuple[float, ...]:
    return tuple(times["auto", b] / min(times[name, b] for name in others) for b in (False, True))


def milliseconds(times: dict[tuple[str, bool], float], name: str) -> str:
    return f"{times[name, False]:.2f}, {times[name, True]:.2f} ms"


def rows_2d(repeats: int, layout: str) -> None:
    for n, k in GOALS:
        times = side_by_side(attention_calls((n, n), HEADS[n], k, layout), repeats)
        row(f"full SDPA / ours, {n}x{n} k{k}", ratios(times, "full", "auto"), *GOALS[n, k],
            f"ours {milliseconds(times, 'auto')}")  # fmt: skip


def rows_small(repeats: int, _: str) -> None:
    for d in (16, 32):
        for k in (3, 7):
            qkv, mask = maps((7, 7), 512 // d, "last", d=d), window_mask((7, 7), k)
            calls: Calls = {
                "auto": (partial(local_attention, *qkv, k), qkv),
                "full": (partial(from_maps, *qkv), qkv),
                "dense": (partial(from_maps, *qkv, mask=mask), qkv),
            }
            times = side_by_side(calls, repeats)
            row(f"auto / best of (full, dense masked), 7x7 k{k} d{d}", over_best(times, "full", "dense"), "1.0", "1.05",
                form=".2f")  # fmt: skip


def rows_conv(repeats: int, layout: str) -> None:
    for n in (56, 28):
        calls = {"auto": attention_calls((n, n), HEADS[n], 7, layout)["auto"], **conv_calls((n, n), 16 * HEADS[n], 7)}
        times = side_by_side(calls, repeats)
        row(f"ours / best depthwise convolution, {n}x{n} k7", over_best(times, "conv", "conv last"), "2.0, 1.0",
            "3.5, 1.5", form=".2f")  # fmt: skip


def rows_extra(repeats: int, layout: str) -> None:
    q, k, v = maps((56, 56), 4, layout)
    bias = torch.randn(4, 7, 7, requires_grad=True)
    token = tuple(torch.randn(8, 4, 1, 16, requires_grad=True) for _ in range(2))
    calls: Calls = {
        "auto": (lambda: local_attention(q, k, v, 7), (q, k, v)),
        "bias": (lambda: local_attention(q, k, v, 7, bias=bias), (q, k, v, bias)),
        "token": (lambda: local_attention(q, k, v, 7, extra_kv=(token[0], token[1])), (q, k, v, *token)),
    }
    times = side_by_side(calls, 2 * repeats)
    for name, goal, minimum in (("bias", "+3 %", "+10 %"), ("token", "+8 %", "+20 %")):
        added = tuple(100 * (r - 1) for r in ratios(times, name, "auto"))
        row(f"{name} added, 56x56 k7 (%)", added, goal, minimum, form="+.1f")


def rows_3d(repeats: int, layout: str) -> None:
    for n, batch in ((16, 8), (32, 1)):
        for k in (3, 5):
            times = side_by_side(attention_calls((n,) * 3, 4, k, layout, batch), 1 if n == 32 else repeats)
            least = "10" if (n, k) == (16, 3) else "report"
            row(f"full SDPA / ours, {n}^3 k{k}, batch {batch}", ratios(times, "full", "auto"), "report", least,
                f"ours {milliseconds(times, 'auto')}")  # fmt: skip


def rows_threads(repeats: int, layout: str) -> None:
    """By the clock, as two threads share CPU time."""
    qkv = maps((56, 56), 4, layout)

    def seconds(backward: bool) -> float:
        taken = []
        for _ in range(6 * repeats):
            start = time.perf_counter()
            out = local_attention(*qkv, 7)
            if backward:
                torch.autograd.grad(out, qkv, torch.ones_like(out))
            taken.append(time.perf_counter() - start)
        return sorted(taken)[len(taken) // 2]

    by_threads = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        by_threads.append((seconds(False), seconds(True)))
    torch.set_num_threads(1)
    row("two threads / one thread, 56x56 k7", tuple(a / b for a, b in zip(*by_threads, strict=True)), "1.85", "1.6",
        f"{os.cpu_count()} cores", form=".2f")  # fmt: skip


def rows_memory(repeats: int, layout: str) -> None:
    """The highest resident memory of a forward and backward pass above what was there before (Linux)."""
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():
        row("extra memory, 56x56 k7", (), "", "", "not measured: no /proc")
        return

    def status(field: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024

    qkv = maps((56, 56), 4, layout)
    ones = torch.ones_like(qkv[0])
    peaks = []
    for _ in range(repeats + 1):
        ctypes.CDLL(None).malloc_trim(0)  # freed memory goes back, or it would hide what is taken again
        clear.write_text("5")  # the peak starts again from here
        before = status("VmRSS")
        out = local_attention(*qkv, 7)
        grads = torch.autograd.grad(out, qkv, ones)
        peaks.append(status("VmHWM") - before)
        del out, grads
    floats = 4 * qkv[0].numel() + qkv[0].numel() // 16  # output, three gradients, log-sum-exp
    allowed = floats * 4 / 2**20 + 2
    row(
        "extra memory, forward and backward, 56x56 k7 (MB)", (max(peaks[1:]),), f"{allowed:.1f}", f"{1.2 * allowed:.1f}"
    )


ROWS = {"2d": rows_2d, "small": rows_small, "conv": rows_conv, "extra": rows_extra, "3d": rows_3d,
        "threads": rows_threads, "memory": rows_memory}  # fmt: skip


def chosen(only: str) -> Iterator[Callable[[int, str], None]]:
    for name, rows in ROWS.items():
        if not only or name in only.split(","):
            yield rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--layout", default="planar", choices=["planar", "last"])
    parser.add_argument("--isa", default="", help="instruction set of the native kernel")
    parser.add_argument("--only", default="", help=f"comma-separated groups of rows: {', '.join(ROWS)}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    if arguments.isa and not native.set_instruction_set(arguments.isa):
        raise SystemExit(f"this machine has no {arguments.isa}")
    print(f"torch {torch.__version__}, native kernel: {native.instruction_set()}, layout {arguments.layout}\n")
    print("| ratio | measured | goal | at least | |\n| --- | --- | --- | --- | --- |")
    for rows in chosen(arguments.only):
        rows(arguments.repeats, arguments.layout)


if __name__ == "__main__":
    main()
