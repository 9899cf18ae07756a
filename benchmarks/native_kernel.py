"""Builds of the native kernel side by side: what a change of it brings.

    python -m mixlab.ops.native.build --folder /tmp/before     # and after the change, --folder /tmp/after
    python benchmarks/native_kernel.py /tmp/before /tmp/after [--layout last] [--isa avx2] [--sizes 56] [--kernels 7]

fp32, batch 8, head size 16, the heads of PoolFormer-S12's stages, one thread. Calls of the library alone, without
PyTorch, one build after the other in every repeat: median milliseconds of CPU time, and their ratio to the first build.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from pathlib import Path

import torch
from local_attention import HEADS, maps
from torch import Tensor

from mixlab.ops.native.build import library_name
from mixlab.ops.native.library import like, map_view, pack_problem, row_view


def problems(q: Tensor, k: Tensor, v: Tensor, kernel: int) -> tuple[dict[str, bytes], tuple[Tensor, ...]]:
    """Both directions' problems by the library's function, and tensors that must outlive them."""
    out, dout, dq, dk, dv = (like(q).normal_() for _ in range(5))
    lse = torch.empty(q.shape[:2] + q.shape[3:])
    views = {"q": map_view(q), "k": map_view(k), "v": map_view(v), "lse": row_view(lse)}
    back = {"dout": map_view(dout), "dq": map_view(dq), "dk": map_view(dk), "dv": map_view(dv)}
    functions = {"mixlab_forward": views | {"out": map_view(out)}, "mixlab_backward": views | back}
    packed = {f: pack_problem(q, [kernel] * 2, [1, 1], False, 0.25, None, view) for f, view in functions.items()}
    return packed, (q, k, v, out, dout, dq, dk, dv, lse)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="where builds lie")
    parser.add_argument("--layout", choices=("planar", "last"), default="planar")
    parser.add_argument("--isa", default="", help="instruction set")
    parser.add_argument("--sizes", type=int, nargs="+", default=[56, 28, 14], choices=list(HEADS))
    parser.add_argument("--kernels", type=int, nargs="+", default=[7, 3])
    parser.add_argument("--repeats", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    builds = [ctypes.CDLL(str(folder / library_name())) for folder in arguments.folders]
    for build in builds:
        if arguments.isa and build.mixlab_set_isa(arguments.isa.encode()):
            raise SystemExit(f"this machine has no {arguments.isa}")
    for n in arguments.sizes:
        for kernel in arguments.kernels:
            inputs = (t.detach() for t in maps((n, n), HEADS[n], arguments.layout))
            packed, _alive = problems(*inputs, kernel)
            for function, problem in packed.items():
                taken: list[list[float]] = [[] for _ in builds]
                for _ in range(arguments.repeats):
                    for build, times in zip(builds, taken, strict=True):
                        start = time.thread_time()
                        getattr(build, function)(problem)
                        times.append(1e3 * (time.thread_time() - start))
                medians = [statistics.median(times) for times in taken]
                cells = "  ".join(f"{m:8.3f} ms ({m / medians[0]:.3f})" for m in medians)
                print(f"{n:3} x {n:<3} k{kernel} {function.removeprefix('mixlab_'):9} {cells}", flush=True)


if __name__ == "__main__":
    main()
