"""The native kernel beside full attention, dense masked attention and a depthwise convolution of the same shape.

    python benchmarks/native_kernel.py [--repeats 7] [--isa avx512] [--layout planar|last]

fp32, batch 8, head size 16, one thread, CPU time, paired repeats in one process. A cell is `median (best)` in ms for
the forward pass and for forward and backward; ratios are of medians.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from timing import cpu_seconds
from torch import Tensor

from mixlab.ops import local_attention_native as native

GRIDS = [((56, 56), 4, 7), ((56, 56), 4, 3), ((28, 28), 8, 7), ((14, 14), 20, 7), ((7, 7), 32, 7), ((7, 7), 32, 3),
         ((16, 16, 16), 4, 3)]  # fmt: skip
D = 16


def inputs_for(size: tuple[int, ...], heads: int, layout: str) -> tuple[Tensor, ...]:
    """q, k, v ``(8, heads, D, *size)``; ``last``: views of one channels-last map, as a linear layer gives them."""
    if layout == "planar":
        return tuple(torch.randn(8, heads, D, *size, requires_grad=True) for _ in range(3))
    x = torch.randn(8, *size, 3, heads, D).movedim((-3, -2, -1), (0, 2, 3))
    return tuple(t.requires_grad_() for t in x.unbind(0))


def tokens_for(size: tuple[int, ...], heads: int) -> tuple[Tensor, ...]:
    """q, k, v ``(8, heads, N, D)``, contiguous: the layout that full attention is fastest with."""
    return tuple(torch.randn(8, heads, math.prod(size), D, requires_grad=True) for _ in range(3))


def window_mask(size: tuple[int, ...], k: int) -> Tensor:
    """(N, N) bool"""
    at = torch.stack(torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij"), dim=-1).reshape(-1, len(size))
    return ((at[:, None] - at[None]).abs() <= k // 2).all(dim=-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--isa", default="")
    parser.add_argument("--layout", default="planar", choices=["planar", "last"])
    parser.add_argument("--only", default="", help="comma-separated calls, e.g. ours,full")
    parser.add_argument("--grids", default="", help="comma-separated numbers of rows of the table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.isa and not native.set_instruction_set(arguments.isa):
        raise SystemExit(f"this machine has no {arguments.isa}")
    print(f"torch {torch.__version__}, {native.instruction_set()}, {arguments.layout}, {arguments.repeats} repeats")
    chosen = [GRIDS[int(i)] for i in arguments.grids.split(",")] if arguments.grids else GRIDS
    for size, heads, k in chosen:
        table(size, heads, k, arguments.layout, arguments.repeats, arguments.only)


def table(size: tuple[int, ...], heads: int, k: int, layout: str, repeats: int, only: str) -> None:
    axes = len(size)
    kernel, steps, scale = (k,) * axes, (1,) * axes, D**-0.5
    q, key, v = inputs_for(size, heads, layout)
    tokens = tokens_for(size, heads)
    mask = window_mask(size, k)
    bias = torch.randn(heads, *kernel, requires_grad=True)
    token = tuple(torch.randn(8, heads, 1, D, requires_grad=True) for _ in range(2))
    image = torch.randn(8, heads * D, *size, requires_grad=True)
    last = image.detach().to(memory_format=torch.channels_last if axes == 2 else torch.channels_last_3d)
    weight = torch.randn(heads * D, 1, *kernel, requires_grad=True)
    conv = F.conv2d if axes == 2 else F.conv3d

    def ours(bias: Tensor | None = None, ek: Tensor | None = None, ev: Tensor | None = None) -> Tensor:
        return native.run(q, key, v, kernel, steps, "clip", bias, scale, None, ek, ev, None)[0]

    calls: dict[str, tuple[Callable[[], Tensor], tuple[Tensor, ...]]] = {
        "ours": (ours, (q, key, v)),
        "bias": (lambda: ours(bias), (q, key, v, bias)),
        "token": (lambda: ours(None, *token), (q, key, v, *token)),
        "full": (lambda: F.scaled_dot_product_attention(*tokens), tokens),
        "dense": (lambda: F.scaled_dot_product_attention(*tokens, attn_mask=mask), tokens),
        "conv": (lambda: conv(image, weight, padding=k // 2, groups=heads * D), (image, weight)),
        "conv last": (
            lambda: conv(last, weight, padding=k // 2, groups=heads * D), (last.requires_grad_(), weight),
        ),
    }  # fmt: skip
    if only:
        calls = {name: call for name, call in calls.items() if name in only.split(",")}
    times: dict[tuple[str, bool], list[float]] = {}
    for repeat in range(repeats + 1):  # the first repeat warms up
        for name, (call, leaves) in calls.items():
            for backward in (False, True):
                if name in ("full", "dense") and repeat > 3:
                    continue
                call()  # once before the clock: the call before this one may have left other data in the caches
                taken = cpu_seconds(call, leaves, backward)
                if repeat:
                    times.setdefault((name, backward), []).append(1e3 * taken)
    print(f"{'x'.join(map(str, size))} k{k} {heads} heads")
    for name in calls:
        forward, both = times[name, False], times[name, True]
        base = [statistics.median(times["ours", b]) for b in (False, True)] if "ours" in calls else [1.0, 1.0]
        middle = [statistics.median(forward), statistics.median(both)]
        print(f"  {name:10} {middle[0]:8.2f} ({min(forward):7.2f})  {middle[1]:8.2f} ({min(both):7.2f})"
              f"   / ours {middle[0] / base[0]:6.2f} {middle[1] / base[1]:6.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
