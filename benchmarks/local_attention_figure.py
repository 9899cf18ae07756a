"""Time of local attention against resolution and against the window, for every backend.

    python benchmarks/local_attention_figure.py [--repeats 3] [--out docs/images/local_attention.svg]

The figure of docs/performance.md. fp32, batch 1, 4 heads of 16, forward and backward, one thread, CPU time; medians as
in benchmarks/local_attention.py. Needs matplotlib (the `dev` extra). Paths that would take seconds are left out.
"""

from __future__ import annotations

import argparse
import math
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from local_attention import conv_calls, maps, tokens
from timing import Calls, keep_freed_memory, side_by_side

from mixlab.errors import UserError
from mixlab.ops import local_attention
from mixlab.ops import local_attention_pure as pure

GRIDS = (7, 14, 28, 56, 112, 224)
KERNELS = (3, 5, 7, 9, 11, 13)
AT_GRID, AT_KERNEL, HEADS = 56, 7, 4
MOST_PAIRS = 56**4  # of positions: beyond, everything against everything takes seconds
STYLES = {
    "native": ("#0b6e4f", "-", "native kernel (auto)"),
    "dense": ("#c1666b", "--", "pure: dense, masked"),
    "bands": ("#d4a017", "--", "pure: bands of rows"),
    "shift": ("#7a5c99", "--", "pure: shifted maps"),
    "full": ("#333333", ":", "full attention"),
    "conv": ("#4a90d9", "-.", "depthwise convolution"),
}


def calls_at(n: int, k: int) -> Calls:
    """What is compared on an ``n x n`` grid with a ``k x k`` window."""
    qkv, seen = maps((n, n), HEADS, batch=1), tokens((n, n), HEADS, batch=1)
    calls = {}
    for name in ("native", *pure.PATHS):
        if (
            (name == "dense" and n**4 > MOST_PAIRS)
            or (name == "bands" and n > 112)
            or (name == "shift" and n * k > 112 * 7)
        ):
            continue
        try:
            local_attention(*qkv, k, backend=name)
        except UserError as error:
            print(f"{name} at {n}x{n} k{k}: {error}")
            continue
        calls[name] = (partial(local_attention, *qkv, k, backend=name), qkv)
    if n**4 <= MOST_PAIRS:
        calls["full"] = (partial(F.scaled_dot_product_attention, *seen), seen)
    return calls | conv_calls((n, n), 16 * HEADS, k, batch=1)


def curve(points: list[tuple[int, int]], repeats: int) -> dict[str, list[float]]:
    """Milliseconds by name, NaN where left out; the better memory order of the convolution."""
    found: dict[str, list[float]] = {name: [] for name in STYLES}
    for n, k in points:
        times = side_by_side(calls_at(n, k), repeats, at_least=0.05)
        times["conv", True] = min(times["conv", True], times["conv last", True])
        for name, values in found.items():
            values.append(times.get((name, True), math.nan))
        print(f"{n}x{n} k{k}: " + ", ".join(f"{name} {v[-1]:.2f}" for name, v in found.items()), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/images/local_attention.svg"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    panels = [
        ("side of the grid (window 7 x 7)", GRIDS, curve([(n, AT_KERNEL) for n in GRIDS], arguments.repeats)),
        (f"side of the window (grid {AT_GRID} x {AT_GRID})", KERNELS,
         curve([(AT_GRID, k) for k in KERNELS], arguments.repeats)),
    ]  # fmt: skip

    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "mixlab"  # the same file from the same numbers
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    for axis, (label, ticks, found) in zip(axes, panels, strict=True):
        for name, (colour, line, title) in STYLES.items():
            axis.plot(ticks, found[name], line, color=colour, marker="o", markersize=4, label=title)
        axis.set_yscale("log")
        axis.set_xscale("log", base=2) if ticks is GRIDS else None
        axis.set_xticks(ticks, [str(t) for t in ticks])
        axis.minorticks_off()
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("forward and backward, ms")
    axes[0].legend(frameon=False, fontsize=9)
    figure.savefig(arguments.out, metadata={"Date": None})
    print(arguments.out)


if __name__ == "__main__":
    main()
