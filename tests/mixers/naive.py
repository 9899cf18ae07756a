"""Every mixer once more, position by position in plain Python, with every multiply counted.

It shares no formula and no code with the package. Maps are numpy arrays ``(C, *spatial)``, weights the module's own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
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


def identity(mixer: Any, x: Array, count: Counter) -> Array:
    return x


def pooling(mixer: Any, x: Array, count: Counter) -> Array:
    y = np.zeros_like(x)
    size = x.shape[1:]
    for c in range(len(x)):
        for at in positions(size):
            neighbours = [n for n in window(at, mixer.kernel_size, (1,) * len(size)) if is_inside(n, size)]
            total = x[(c, *neighbours[0])]
            for n in neighbours[1:]:
                total += x[(c, *n)]
                count.other += 1
            mean = total / len(neighbours)
            count.other += 1
            count.written += 1
            y[(c, *at)] = mean - x[(c, *at)]
            count.other += 1
            count.written += 1
    return y


def conv(mixer: Any, x: Array, count: Counter) -> Array:
    weight = mixer.conv.weight.detach().double().numpy()
    bias = mixer.conv.bias.detach().double().numpy()
    size, kernel = x.shape[1:], weight.shape[2:]
    y = np.zeros_like(x)
    for out in range(len(x)):
        inputs = [out] if mixer.groups == len(x) else list(range(len(x)))
        for at in positions(size):
            y[(out, *at)] = bias[out]
            count.written += 1
            for slot, source in enumerate(inputs):
                for tap, n in zip(positions(kernel), window(at, kernel, mixer.conv.dilation), strict=True):
                    value = x[(source, *n)] if is_inside(n, size) else 0.0
                    y[(out, *at)] += weight[(out, slot, *tap)] * value
                    count.macs += 1
    return y


def _attend(mixer: Any, x: Array, count: Counter, neighbours: Callable[[Index], list[Index]]) -> Array:
    q, k, v = np.split(linear(x, mixer.qkv, count), 3)
    mixed = np.zeros_like(x)
    for at in positions(x.shape[1:]):
        keys = neighbours(at)
        for head in range(mixer.heads):
            own = slice(head * mixer.head_dim, (head + 1) * mixer.head_dim)
            scores = [count.dot(column(q[own], at), column(k[own], n)) / math.sqrt(mixer.head_dim) for n in keys]
            count.written += len(scores)
            weights = softmax(scores, count)
            for channel in range(own.start, own.stop):
                mixed[(channel, *at)] = count.dot(np.array(weights), np.array([v[(channel, *n)] for n in keys]))
                count.written += 1
    return linear(mixed, mixer.proj, count)


def attention(mixer: Any, x: Array, count: Counter) -> Array:
    return _attend(mixer, x, count, lambda at: positions(x.shape[1:]))


def local_attention(mixer: Any, x: Array, count: Counter) -> Array:
    size = x.shape[1:]
    return _attend(
        mixer, x, count, lambda at: [n for n in window(at, mixer.kernel_size, mixer.dilation) if is_inside(n, size)]
    )


NAIVE: dict[str, Callable[[Any, Array, Counter], Array]] = {
    "identity": identity,
    "pooling": pooling,
    "conv": conv,
    "sep_conv": conv,
    "attention": attention,
    "local_attention": local_attention,
}
