"""What the naive twins share: a counter, and loops over positions and windows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = tuple[int, ...]


@dataclass
class Counter:
    macs: int = 0
    other: int = 0
    written: int = 0

    def dot(self, a: Array, b: Array) -> float:
        total = 0.0
        for x, y in zip(a, b, strict=True):
            total += float(x) * float(y)
            self.macs += 1
        return total


def positions(size: Index) -> list[Index]:
    return list(itertools.product(*(range(n) for n in size)))


def window(at: Index, kernel: Index, dilation: Index) -> Iterator[Index]:
    """Positions of the window around ``at``, also those outside the image."""
    for steps in itertools.product(*(range(k) for k in kernel)):
        yield tuple(p + (s - k // 2) * d for p, s, k, d in zip(at, steps, kernel, dilation, strict=True))


def column(x: Array, at: Index) -> Array:
    """The channels of one position."""
    return np.array([channel[at] for channel in x])


def is_inside(at: Index, size: Index) -> bool:
    return all(0 <= p < n for p, n in zip(at, size, strict=True))


def linear(x: Array, layer: Any, count: Counter) -> Array:
    """A linear layer on every position."""
    weight = layer.weight.detach().double().numpy()
    bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().double().numpy()
    y = np.zeros((len(weight), *x.shape[1:]))
    for at in positions(x.shape[1:]):
        for row in range(len(weight)):
            y[(row, *at)] = bias[row] + count.dot(weight[row], column(x, at))
            count.written += 1
    return y


def softmax(scores: list[float], count: Counter) -> list[float]:
    top = max(scores)
    shifted = [s - top for s in scores]
    exponentials = [math.exp(s) for s in shifted]
    total = exponentials[0]
    count.other += len(shifted) + len(exponentials)
    for e in exponentials[1:]:
        total += e
        count.other += 1
    count.other += len(exponentials)
    count.written += len(exponentials)
    return [e / total for e in exponentials]
