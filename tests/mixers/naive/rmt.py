"""The mixer of RMT."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.mixers.naive.base import Array, Counter, Index, column, is_inside, linear, positions, softmax, window


def _rotate(mixer: Any, x: Array, count: Counter) -> Array:
    """Each pair of channels of a head turned by (index of the position) times (angle of the pair)."""
    y = np.zeros_like(x)
    pairs = mixer.head_dim // 2
    for index, at in enumerate(positions(x.shape[1:])):
        for first in range(0, len(x), 2):
            pair = first % mixer.head_dim // 2
            angle = float(np.float32(10000.0 ** -(pair / (pairs - 1) if pairs > 1 else 0.0)))
            cos, sin = math.cos(index * angle), math.sin(index * angle)
            even, odd = x[(first, *at)], x[(first + 1, *at)]
            y[(first, *at)] = even * cos - odd * sin
            y[(first + 1, *at)] = odd * cos + even * sin
            count.other += 6
            count.written += 2
    return y


def _attend(mixer: Any, q: Array, k: Array, v: Array, count: Counter, seen: Callable[[Index, Index], bool]) -> Array:
    out = np.zeros_like(v)
    everywhere = positions(v.shape[1:])
    for head in range(mixer.heads):
        own = slice(head * mixer.head_dim, (head + 1) * mixer.head_dim)
        rate = float(np.float32(math.log(1 - 2.0 ** -(mixer.decay_start + mixer.decay_range * head / mixer.heads))))
        for at in everywhere:
            keys = [n for n in everywhere if seen(at, n)]
            scores = []
            for n in keys:
                steps = sum(abs(a - b) for a, b in zip(at, n, strict=True))
                product = count.dot(column(q[own], at), column(k[own], n))
                scores.append(product / math.sqrt(mixer.head_dim) + rate * steps)
                count.written += 1
            weights = softmax(scores, count)
            for channel in range(own.start, own.stop):
                out[(channel, *at)] = count.dot(np.array(weights), np.array([v[(channel, *n)] for n in keys]))
                count.written += 1
    return out


def _depthwise(layer: Any, x: Array, count: Counter) -> Array:
    weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
    size, kernel = x.shape[1:], weight.shape[2:]
    y = np.zeros_like(x)
    for c in range(len(x)):
        for at in positions(size):
            values = [x[(c, *n)] if is_inside(n, size) else 0.0 for n in window(at, kernel, (1,) * len(size))]
            y[(c, *at)] = bias[c] + count.dot(weight[c, 0].ravel(), np.array(values))
            count.written += 1
    return y


def manhattan_attention(mixer: Any, x: Array, count: Counter) -> Array:
    q = _rotate(mixer, linear(x, mixer.q_proj, count), count)
    k = _rotate(mixer, linear(x, mixer.k_proj, count), count)
    v = linear(x, mixer.v_proj, count)
    mixed = v
    if mixer.decomposed:
        for axis in reversed(range(x.ndim - 1)):
            others = [a for a in range(x.ndim - 1) if a != axis]
            mixed = _attend(mixer, q, k, mixed, count, lambda at, n, others=others: all(at[a] == n[a] for a in others))  # type: ignore[misc]
    else:
        mixed = _attend(mixer, q, k, v, count, lambda at, n: True)
    return linear(mixed + _depthwise(mixer.lepe, v, count), mixer.out_proj, count)


NAIVE: dict[str, Callable[[Any, Array, Counter], Array]] = {"manhattan_attention": manhattan_attention}
OPTIONS: dict[str, dict[str, Any]] = {"manhattan_attention": {"head_dim": 2}}
