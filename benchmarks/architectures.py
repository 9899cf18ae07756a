"""Inference and training throughput of published models against timm's, side by side in one run.

    python benchmarks/architectures.py [--models poolformer_s12 ...] [--batches 1 8 32] [--repeats 5] [--size 224]

One thread, CPU time, float32. timm runs in both memory formats (NCHW and channels last), and its faster one counts;
ours runs as it is. Every repeat runs all three after each other. Prints images a second of ours and of timm's better
format, and the ratio of the medians: above 1, ours is faster. Training is forward, cross entropy and backward.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mixlab

MODELS = ("poolformer_s12", "poolformerv2_s12", "convformer_s18", "caformer_s18")


def seconds(model: nn.Module, x: Tensor, target: Tensor, train: bool) -> float:
    """CPU seconds of one step."""
    start = time.process_time()
    if train:
        model.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), target).backward()
    else:
        with torch.inference_mode():
            model(x)
    return time.process_time() - start


def contenders(name: str, x: Tensor) -> dict[str, tuple[nn.Module, Tensor]]:
    """Our model and timm's in both formats, each with its input."""
    import timm

    last = torch.channels_last
    return {
        "mixlab": (mixlab.create_model(name, drop_path_rate=0.0), x),
        "timm NCHW": (timm.create_model(name), x),
        "timm channels last": (timm.create_model(name).to(memory_format=last), x.contiguous(memory_format=last)),
    }


def measure(name: str, batch: int, size: int, train: bool, repeats: int) -> dict[str, float]:
    """Median seconds of every contender."""
    x, target = torch.randn(batch, 3, size, size), torch.randint(1000, (batch,))
    models = contenders(name, x)
    for model, _ in models.values():
        model.train(train)
    steps: dict[str, Callable[[], float]] = {
        key: (lambda m=model, i=given: seconds(m, i, target, train)) for key, (model, given) in models.items()
    }
    times: dict[str, list[float]] = {key: [] for key in steps}
    for repeat in range(repeats + 1):
        for key, step in steps.items():
            took = step()
            if repeat:  # the first one warms up
                times[key].append(took)
    return {key: statistics.median(values) for key, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, help="names that both libraries know")
    parser.add_argument("--batches", nargs="+", type=int, default=(1, 8, 32))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    given = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, {given.size} px, median of {given.repeats}; images a second")
    print(f"{'model':<18} {'mode':<10} batch   mixlab     timm  ratio  timm's better format")
    for name in given.models:
        for train in (False, True):
            for batch in given.batches:
                times = measure(name, batch, given.size, train, given.repeats)
                ours = times.pop("mixlab")
                best = min(times, key=lambda k: times[k])
                print(
                    f"{name:<18} {'training' if train else 'inference':<10} {batch:5} {batch / ours:8.2f} "
                    f"{batch / times[best]:8.2f} {times[best] / ours:6.2f}  {best.removeprefix('timm ')}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
