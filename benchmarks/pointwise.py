"""Why a pointwise layer is ``F.linear`` on transposed tokens and not a 1x1 convolution.

    python benchmarks/pointwise.py [--repeats 11]

One thread, CPU time, float32, width C to 4 C with a bias; prints the time of the 1x1 convolution over ours, forward and
forward with backward: higher is better for ours. Each figure is a median of paired repeats.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial

import torch
import torch.nn.functional as F
from timing import cpu_seconds
from torch import Tensor

from mixlab.ops import pointwise

SHAPES = [(32, 32, 14), (32, 64, 7), (32, 128, 2), (8, 64, 56), (8, 320, 14), (1, 320, 14)]


def convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The 1x1 convolution."""
    return F.conv2d(x, weight[:, :, None, None], bias)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=11, help="paired repeats")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, {repeats} repeats\nbatch    C  grid  forward  +backward")
    for batch, c, n in SHAPES:
        shapes = ((batch, c, n, n), (4 * c, c), (4 * c,))
        inputs = tuple(torch.randn(s, requires_grad=True) for s in shapes)
        ratios = {}
        for backward in (False, True):
            calls = [partial(layer, *inputs) for layer in (convolution, pointwise)]
            pairs = [[cpu_seconds(call, inputs, backward) for call in calls] for _ in range(repeats + 1)]
            ratios[backward] = statistics.median(a / b for a, b in pairs[1:])  # the first pair warms up
        print(f"{batch:5} {c:4} {n:5} {ratios[False]:8.2f} {ratios[True]:10.2f}")


if __name__ == "__main__":
    main()
