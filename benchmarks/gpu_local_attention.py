"""How fast is local attention on a GPU, against full attention, flex_attention and the time to move its maps?

    python benchmarks/gpu_local_attention.py [--repeats 30] [--batch 128] [--sweep]

The row of the goals: bfloat16, batch 128, 4 heads of 16, 56x56, k = 7. CUDA events; medians of milliseconds after
warm-up, forward, and forward with the gradients of q, k and v. "move q, k, v, o" copies two maps to two others, which
moves as many bytes as reading q, k, v and writing o. Full attention is the best of PyTorch's fused ones, flex_attention
is compiled on positions in raster order; both get their inputs in the layout that they like, outside of the time.
`--sweep` times the Triton kernel with other tiles, blocks and numbers of warps. Before anything is timed, the Triton
kernel is compared with the definition, gradients included.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from mixlab.ops import local_attention
from mixlab.ops import local_attention_flex as flex
from mixlab.ops import local_attention_triton as triton
from mixlab.ops.local_attention_choice import backend_status
from mixlab.ops.neighbours import Window

HEADS, HEAD_DIM, SIZE, K = 4, 16, (56, 56), 7
FUSED = {
    "flash": SDPBackend.FLASH_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}  # fmt: skip
GOALS = """goals: triton forward at most 3 times the move; at least 12 times faster than full attention forward,
10 times with backward; at least 3 times faster than flex_attention"""
Call = Callable[[], Tensor]


def maps(batch: int, dtype: torch.dtype, *, last: bool) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v ``(B, heads, d, *spatial)``: planar, or views of one channels-last map, as mixers make them."""
    if last:
        joined = torch.randn(batch, *SIZE, 3, HEADS, HEAD_DIM, device="cuda", dtype=dtype)
        q, k, v = joined.movedim((-3, -2, -1), (0, 2, 3)).unbind(0)
    else:
        q, k, v = torch.randn(3, batch, HEADS, HEAD_DIM, *SIZE, device="cuda", dtype=dtype).unbind(0)
    return q.detach().requires_grad_(), k.detach().requires_grad_(), v.detach().requires_grad_()


def milliseconds(call: Callable[[], object], repeats: int) -> float:
    """The median of several calls."""
    for _ in range(5):
        call()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def timed(call: Call, inputs: tuple[Tensor, ...], repeats: int) -> tuple[float, float]:
    """Forward, and forward with gradients."""
    with torch.no_grad():
        forward = milliseconds(call, repeats)
        seen = torch.randn_like(call())

    def both() -> None:
        torch.autograd.grad(call(), inputs, seen)

    return forward, milliseconds(both, repeats)


def check(dtype: torch.dtype) -> None:
    """The largest relative difference from the definition, of results and gradients."""
    for last, border in itertools.product((False, True), ("clip", "shift")):
        inputs = maps(2, dtype, last=last)
        bias = torch.randn(HEADS, *Window((K, K), (1, 1), border).bias_shape(), device="cuda", requires_grad=True)
        token = torch.randn(2, HEADS, 3, HEAD_DIM, device="cuda", dtype=dtype, requires_grad=True)
        found = []
        for backend in ("triton", "reference"):
            out, lse = local_attention(
                *inputs, K, border=border, bias=bias, extra_kv=(token, token), backend=backend, return_lse=True
            )
            seen = torch.cos(torch.arange(out.numel(), device="cuda").view(out.shape)).to(dtype)
            found.append(
                [out, lse, *torch.autograd.grad([out, lse], [*inputs, bias, token], [seen, lse.detach().cos()])]
            )
        worst = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*found, strict=True))
        finite = all(bool(t.isfinite().all()) for t in found[0])
        layout = "channels last" if last else "planar"
        print(
            f"check {dtype!s:15} {layout:13} {border:5}  largest difference {worst:.1e}, finite: {finite}",
            flush=True,
        )


def flex_calls(inputs: tuple[Tensor, Tensor, Tensor]) -> tuple[Call, tuple[Tensor, ...]]:
    """Compiled flex_attention on padded sequences that lie ready."""
    padding = flex.padded_length(SIZE[0] * SIZE[1]) - SIZE[0] * SIZE[1]
    window = Window((K, K), (1, 1))
    q, k, v = (F.pad(t.detach().flatten(3).mT, (0, 0, 0, padding)).contiguous().requires_grad_() for t in inputs)
    mask, compiled = flex.block_mask(SIZE, window, q.device), flex._compiled()
    scale = HEAD_DIM**-0.5
    return lambda: compiled(q, k, v, None, mask, SIZE, window, scale, None)[0], (q, k, v)


def report(name: str, call: Call, inputs: tuple[Tensor, ...], repeats: int) -> tuple[float, float] | None:
    """Print a row; what cannot run here says why."""
    try:
        times = timed(call, inputs, repeats)
    except (RuntimeError, ValueError, torch.OutOfMemoryError) as error:
        print(f"{name:34} not measured: {str(error).splitlines()[0]}", flush=True)
        return None
    print(f"{name:34} {times[0]:9.3f} {times[1]:9.3f}", flush=True)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30, help="timed calls")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--sweep", action="store_true", help="tiles, blocks and warps of the Triton kernel")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("not measured: no CUDA device")
        return
    torch.manual_seed(0)
    batch, repeats, dtype = arguments.batch, arguments.repeats, torch.bfloat16
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}, backends: {backend_status()}")
    for kind in (torch.float32, torch.bfloat16, torch.float16):
        check(kind)
    print(f"\n{dtype}, batch {batch}, {HEADS} heads of {HEAD_DIM}, {SIZE[0]}x{SIZE[1]}, k = {K}; milliseconds\n")
    print(f"{'':34} {'forward':>9} {'both':>9}")
    planar, last = maps(batch, dtype, last=False), maps(batch, dtype, last=True)
    source = torch.cat([t.detach().flatten() for t in planar[:2]])
    target = torch.empty_like(source)
    move = milliseconds(lambda: target.copy_(source), repeats)
    print(f"{'move q, k, v, o':34} {move:9.3f}", flush=True)
    attend = functools.partial(local_attention, kernel_size=K)
    ours = report("triton, planar", lambda: attend(*planar, backend="triton"), planar, repeats)
    ours_last = report("triton, channels last", lambda: attend(*last, backend="triton"), last, repeats)
    report("shift (PyTorch only), planar", lambda: attend(*planar, backend="shift"), planar, max(3, repeats // 10))
    if backend_status()["natten"] is None:
        report("natten (shifted borders)", lambda: attend(*last, border="shift", backend="natten"), last, repeats)
    q, k, v = (t.detach().flatten(3).mT.contiguous().requires_grad_() for t in planar)
    full = []
    for name, backend in FUSED.items():

        def fused(backend: SDPBackend = backend) -> Tensor:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v)

        full.append(report(f"full attention, {name}", fused, (q, k, v), repeats))
    call, inputs = flex_calls(planar)
    others = {"flex_attention": report("flex_attention, compiled", call, inputs, repeats)}
    if any(full):
        others["full attention"] = tuple(min(t[i] for t in full if t) for i in range(2))  # type: ignore[assignment]
    print()
    for layout, times in {"planar": ours, "channels last": ours_last}.items():
        if times is None:
            continue
        print(f"triton, {layout}: forward {times[0] / move:.2f} times the move")
        for name, theirs in others.items():
            if theirs is not None:
                both = theirs[1] / times[1]
                print(f"  {theirs[0] / times[0]:.1f} times faster than {name} forward, {both:.1f} times with backward")
    print(GOALS)
    if arguments.sweep:
        sweep(last, repeats)


def sweep(inputs: tuple[Tensor, Tensor, Tensor], repeats: int) -> None:
    """The kernel's constants; channels-last maps."""
    print("\npositions of a tile, of a block, warps; milliseconds forward and both")
    for triton.TILE, triton.BLOCK, triton.WARPS in itertools.product(
        (16, 32, 64, 128), (16, 32, 64, 128), (1, 2, 4, 8)
    ):
        name = f"{triton.TILE:4} {triton.BLOCK:4} {triton.WARPS:2}"
        report(name, lambda: local_attention(*inputs, K, backend="triton"), inputs, repeats)


if __name__ == "__main__":
    main()
