"""What a whole model costs around its token mixers: PoolFormer-S12 against timm's, and local attention against pooling.

    python benchmarks/metaformer.py [--threads 2] [--repeats 7] [--batch 1 8 32] [--mode inference training]

224 px, float32. Two rows a batch and mode:

* ``local attention / pooling``: ``metaformer_s12`` with local attention of window 7 in all stages, over the same with
  pooling (inference only; lower is better). The projections alone add 44 % of the multiply-accumulates.
* ``timm / ours``: timm's ``poolformer_s12`` in the faster of its two memory formats, over ours (higher is better).

All contenders run after each other in every repeat. A ratio is the median over the repeats of the ratio within one, of
CPU time of all threads and of wall time. Waiting threads sleep (``OMP_WAIT_POLICY=PASSIVE``): spinning ones would count
as computing, and stall each other on a machine with other work. Training is forward, cross entropy and backward.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Sequence

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch loads its threads

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mixlab

SIZE = 224
Times = dict[str, list[tuple[float, float]]]


def step(model: nn.Module, x: Tensor, target: Tensor, train: bool) -> tuple[float, float]:
    """CPU and wall seconds of one step."""
    cpu, wall = time.process_time(), time.perf_counter()
    if train:
        model.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), target).backward()
    else:
        with torch.inference_mode():
            model(x)
    return time.process_time() - cpu, time.perf_counter() - wall


def measure(models: dict[str, tuple[nn.Module, Tensor]], train: bool, repeats: int) -> Times:
    """Seconds of every repeat, after one that warms up."""
    batch = next(iter(models.values()))[1].shape[0]
    target = torch.randint(1000, (batch,))
    times: Times = {name: [] for name in models}
    for repeat in range(repeats + 1):
        for name, (model, x) in models.items():
            took = step(model.train(train), x, target, train)
            if repeat:
                times[name].append(took)
    return times


def ratio(times: Times, above: Sequence[str], below: str) -> list[float]:
    """Medians over repeats of the time of the fastest of ``above`` over that of ``below``: CPU, wall."""
    medians = []
    for clock in (0, 1):
        fastest = min(above, key=lambda name: statistics.median(t[clock] for t in times[name]))
        pairs = zip(times[fastest], times[below], strict=True)
        medians.append(statistics.median(a[clock] / b[clock] for a, b in pairs))
    return medians


def contenders(x: Tensor, attention: bool) -> dict[str, tuple[nn.Module, Tensor]]:
    """Models by name, each with its input."""
    import timm

    last = torch.channels_last
    models: dict[str, tuple[nn.Module, Tensor]] = {
        "ours": (mixlab.create_model("metaformer_s12", token_mixer="pooling", drop_path_rate=0.0), x),
        "timm NCHW": (timm.create_model("poolformer_s12"), x),
        "timm channels last": (
            timm.create_model("poolformer_s12").to(memory_format=last),
            x.contiguous(memory_format=last),
        ),
    }
    if attention:
        mixer = {"name": "local_attention", "kernel_size": 7}
        models["attention"] = (mixlab.create_model("metaformer_s12", token_mixer=mixer, drop_path_rate=0.0), x)
    return models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7, help="paired repeats")
    parser.add_argument("--batch", type=int, nargs="+", default=(1, 8, 32))
    parser.add_argument("--mode", nargs="+", choices=("inference", "training"), default=("inference", "training"))
    given = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.set_num_threads(given.threads)
    print(
        f"torch {torch.__version__}, {given.threads} threads, {SIZE} px, {given.repeats} repeats; ratios of CPU, wall"
    )
    for mode in given.mode:
        for batch in given.batch:
            train = mode == "training"
            models = contenders(torch.randn(batch, 3, SIZE, SIZE), attention=not train)
            times = measure(models, train, given.repeats)
            each = [f"{n} {1e3 * statistics.median(c for c, _ in t) / batch:.1f}" for n, t in times.items()]
            rows = {"timm / ours": ratio(times, ["timm NCHW", "timm channels last"], "ours")}
            if not train:
                rows = {"local attention / pooling": ratio(times, ["attention"], "ours")} | rows
            for name, (cpu, wall) in rows.items():
                print(f"{mode:<10} batch {batch:<3} {name:<26} {cpu:5.2f} {wall:5.2f}", flush=True)
            print(f"{'':<20} CPU ms an image: {', '.join(each)}", flush=True)


if __name__ == "__main__":
    main()
