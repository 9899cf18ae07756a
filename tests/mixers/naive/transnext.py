"""TransNeXt's attentions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tests.mixers.naive.base import Array, Counter, Index, column, is_inside, linear, positions, softmax, window

Biases = dict[tuple[int, Index, int], float]


def numbers(parameter: Any) -> Array:
    return np.array(parameter.detach().double().numpy())


def unit(vector: Array, count: Counter) -> Array:
    """A vector divided by its length; a square, an addition or root, and a division an element."""
    total = float(vector[0]) ** 2
    for value in vector[1:]:
        total += float(value) ** 2
        count.other += 2
    length = math.sqrt(total)
    count.other += 2  # the first square, the root
    count.other += len(vector)
    count.written += len(vector)
    return np.array([float(value) / length for value in vector])


def gelu(value: float, count: Counter) -> float:
    count.other += 1
    count.written += 1
    return value * 0.5 * (1 + math.erf(value / math.sqrt(2)))


def temperature(mixer: Any, count: Counter) -> list[float]:
    count.other += mixer.heads
    count.written += mixer.heads
    return [math.log(1 + math.exp(t)) for t in numbers(mixer.temperature).ravel()]


def bias_of_difference(cpb: Any, difference: Iterable[float], size: Index, count: Counter) -> list[float]:
    """One value a head for one coordinate difference."""
    logs = []
    for d, s in zip(difference, cpb.pretrain_size or size, strict=True):
        scaled = d / max(s - 1, 1) * 8
        logs.append(math.copysign(math.log2(abs(scaled) + 1) / math.log2(8), scaled))
    hidden = []
    for row, offset in zip(numbers(cpb.fc1.weight), numbers(cpb.fc1.bias), strict=True):
        value = count.dot(row, np.array(logs)) + offset
        hidden.append(max(0.0, float(value)))
        count.other += 1
        count.written += 2
    out = []
    for row, offset in zip(numbers(cpb.fc2.weight), numbers(cpb.fc2.bias), strict=True):
        out.append(float(count.dot(row, np.array(hidden)) + offset))
        count.written += 1
    return out


def biases(cpb: Any, size: Index, keys: list[tuple[float, ...]], count: Counter) -> Biases:
    """For each head, query and key, every difference computed once."""
    known: dict[tuple[float, ...], list[float]] = {}
    result: Biases = {}
    for at in positions(size):
        for number, key in enumerate(keys):
            difference = tuple(a - k for a, k in zip(at, key, strict=True))
            if difference not in known:
                known[difference] = bias_of_difference(cpb, difference, size, count)
            for head, value in enumerate(known[difference]):
                result[head, at, number] = value
    return result


def cosine_attention(mixer: Any, x: Array, count: Counter) -> Array:
    size, d = x.shape[1:], mixer.head_dim
    q, k, v = np.split(linear(x, mixer.qkv, count), 3)
    everywhere = positions(size)
    bias = biases(mixer.cpb, size, [tuple(map(float, at)) for at in everywhere], count)
    mixed = np.zeros_like(x)
    for head, tau in enumerate(temperature(mixer, count)):
        scale = tau * math.log(len(everywhere))
        count.other += 1
        count.written += 1
        own = slice(head * d, (head + 1) * d)
        keys = [unit(column(k[own], at), count) for at in everywhere]
        for at in everywhere:
            query = (unit(column(q[own], at), count) + numbers(mixer.query_embedding)[head, 0]) * scale
            count.other += d
            count.written += d
            scores = [count.dot(query, key) + bias[head, at, n] for n, key in enumerate(keys)]
            count.written += len(scores)
            weights = np.array(softmax(scores, count))
            for channel in range(own.start, own.stop):
                mixed[(channel, *at)] = count.dot(weights, np.array([v[(channel, *n)] for n in everywhere]))
                count.written += 1
    return linear(mixed, mixer.proj, count)


def pooled_map(mixer: Any, x: Array, count: Counter) -> tuple[Array, list[tuple[float, ...]]]:
    """The normalised pooled map, and the mean coordinate of each of its bins."""
    size = x.shape[1:]
    grid = mixer.pool_size or tuple(max(1, n // r) for n, r in zip(size, mixer.sr_ratio, strict=True))
    projected = linear(x, mixer.sr, count)
    active = np.vectorize(lambda value: gelu(float(value), count), otypes=[float])(projected)
    pooled, means = np.zeros((len(x), *grid)), []
    for cell in positions(grid):
        axes = [
            range(math.floor(i * n / p), math.ceil((i + 1) * n / p)) for i, n, p in zip(cell, size, grid, strict=True)
        ]
        members = list(itertools.product(*axes))
        means.append(tuple(sum(axis) / len(axis) for axis in axes))
        for channel in range(len(x)):
            total = active[(channel, *members[0])]
            for member in members[1:]:
                total += active[(channel, *member)]
                count.other += 1
            pooled[(channel, *cell)] = total / len(members)
            count.other += 1
            count.written += 1
        values = column(pooled, cell)
        normal = (values - values.mean()) / np.sqrt(values.var() + 1e-5)
        count.other += 5 * len(values)  # as every norm of the package
        count.written += len(values)
        for channel, value in enumerate(normal * numbers(mixer.norm.weight) + numbers(mixer.norm.bias)):
            pooled[(channel, *cell)] = value
    return pooled, means


def aggregated_attention(mixer: Any, x: Array, count: Counter) -> Array:
    size, d = x.shape[1:], mixer.head_dim
    q = linear(x, mixer.q, count)
    k, v = np.split(linear(x, mixer.kv, count), 2)
    pooled, means = pooled_map(mixer, x, count)
    pooled_k, pooled_v = np.split(linear(pooled, mixer.kv, count), 2)
    cells = positions(pooled.shape[1:])
    bias = biases(mixer.cpb, size, means, count)
    mixed = np.zeros_like(x)
    for head, tau in enumerate(temperature(mixer, count)):
        own = slice(head * d, (head + 1) * d)
        keys = {at: unit(column(k[own], at), count) for at in positions(size)}
        far_keys = [unit(column(pooled_k[own], cell), count) for cell in cells]
        for at in positions(size):
            around = [
                (j, n) for j, n in enumerate(window(at, mixer.kernel_size, (1,) * len(size))) if is_inside(n, size)
            ]
            direction = unit(column(q[own], at), count)
            embedding = 0.0 if mixer.query_embedding is None else numbers(mixer.query_embedding)[head, 0]
            query = (direction + embedding) * (tau * math.log(len(around) + len(cells)))
            count.other += 1 + d
            count.written += 1 + d
            local_bias = numbers(mixer.relative_pos_bias_local)[head]
            scores = [count.dot(query, keys[n]) + local_bias[j] for j, n in around]
            scores += [count.dot(query, key) + bias[head, at, n] for n, key in enumerate(far_keys)]
            count.written += len(scores)
            weights = softmax(scores, count)
            if mixer.learnable_tokens is not None:
                for slot, (j, _n) in enumerate(around):
                    static = count.dot(direction, numbers(mixer.learnable_tokens)[head, :, j])
                    weights[slot] += static + numbers(mixer.learnable_bias)[head, 0, j]
                    count.other += 1
                    count.written += 2
            for channel in range(own.start, own.stop):
                values = [v[(channel, *n)] for _j, n in around] + [pooled_v[(channel, *cell)] for cell in cells]
                mixed[(channel, *at)] = count.dot(np.array(weights), np.array(values))
                count.written += 1
    return linear(mixed, mixer.proj, count)


NAIVE: dict[str, Callable[[Any, Array, Counter], Array]] = {
    "aggregated_attention": aggregated_attention,
    "cosine_attention": cosine_attention,
}
OPTIONS: dict[str, dict[str, Any]] = {"aggregated_attention": {"head_dim": 3}, "cosine_attention": {"head_dim": 3}}
