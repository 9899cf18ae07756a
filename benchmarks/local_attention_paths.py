"""Which PyTorch-only path of local attention is fastest where? The dispatcher's thresholds come from this table.

    python benchmarks/local_attention_paths.py [--repeats 5] [--dims 2] [--absolute]

fp32, batch 8, 4 heads of 16, one thread, CPU time; every cell is the median of paired repeats, as time over full
attention of the same shape (forward, forward and backward): lower is faster. `*` marks the dispatcher's choice among
PyTorch-only paths. With `--absolute` cells are milliseconds, and nothing beyond 1000 positions is dense.
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from timing import cpu_seconds
from torch import Tensor

from mixlab.ops import local_attention
from mixlab.ops import local_attention_pure as pure
from mixlab.ops.local_attention_choice import backend_status, choose_path

SHAPES: dict[int, list[tuple[tuple[int, ...], int]]] = {
    2: [((56, 56), 3), ((56, 56), 5), ((56, 56), 7), ((28, 28), 3), ((28, 28), 5), ((28, 28), 7), ((14, 14), 3),
        ((14, 14), 5), ((14, 14), 7), ((7, 7), 3), ((7, 7), 7)],
    3: [((16, 16, 16), 3), ((8, 8, 8), 3), ((8, 8, 8), 5)],
}  # fmt: skip


def full(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Fused attention over all positions."""
    q, k, v = (t.flatten(3).transpose(2, 3) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(2, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="paired repeats")
    parser.add_argument("--dims", type=int, default=2, choices=[2, 3], help="spatial axes")
    parser.add_argument("--absolute", action="store_true", help="milliseconds, without full attention")
    arguments = parser.parse_args()
    names = [*pure.PATHS, *(["native"] if backend_status()["native"] is None else [])]
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {arguments.repeats} repeats, one thread")
    print(f"{'grid':>12} {'k':>2}  " + "  ".join(f"{name:>14}" for name in names))
    for size, k in SHAPES[arguments.dims]:
        kernel, dilation = (k,) * len(size), (1,) * len(size)
        inputs = tuple(torch.randn(8, 4, 16, *size, requires_grad=True) for _ in range(3))
        calls: dict[str, Callable[[], Tensor]] = {}
        if not arguments.absolute:
            calls["full"] = functools.partial(full, *inputs)
        for name in names:
            if name != "dense" or not arguments.absolute or math.prod(size) <= 1000:
                calls[name] = functools.partial(local_attention, *inputs, k, backend=name)
        times: dict[tuple[str, bool], list[float]] = {}
        for repeat in range(arguments.repeats + 1):  # the first repeat warms up
            for name, call in calls.items():
                for backward in (False, True):
                    taken = cpu_seconds(call, inputs, backward)
                    if repeat:
                        times.setdefault((name, backward), []).append(taken)
        chosen, cells = choose_path(size, kernel, dilation), []
        for name in names:
            if name not in calls:
                cells.append(f"{'-':>14} ")
                continue
            both = []
            for b in (False, True):
                unit = times["full", b] if "full" in calls else [1e-3] * arguments.repeats
                both.append(statistics.median(t / u for t, u in zip(times[name, b], unit, strict=True)))
            cells.append(f"{both[0]:7.2f} {both[1]:6.2f}{'*' if name == chosen else ' '}")
        print(f"{'x'.join(map(str, size)):>12} {k:>2}  " + "  ".join(cells), flush=True)


if __name__ == "__main__":
    main()
