"""The mixers of the study and of PoolFormer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.mixers.naive.base import Array, Counter, column, is_inside, linear, positions, softmax, window


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


def convolution(layer: Any, x: Array, count: Counter) -> Array:
    """A torch convolution with odd kernel and "same" zero padding; depthwise when it has as many groups as channels."""
    weight = layer.weight.detach().double().numpy()
    bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().double().numpy()
    size, kernel = x.shape[1:], weight.shape[2:]
    y = np.zeros((len(weight), *size))
    for out in range(len(weight)):
        inputs = list(range(len(x))) if layer.groups == 1 else [out]
        for at in positions(size):
            y[(out, *at)] = bias[out]
            count.written += 1
            for slot, source in enumerate(inputs):
                for tap, n in zip(positions(kernel), window(at, kernel, layer.dilation), strict=True):
                    value = x[(source, *n)] if is_inside(n, size) else 0.0
                    y[(out, *at)] += weight[(out, slot, *tap)] * value
                    count.macs += 1
    return y


def conv(mixer: Any, x: Array, count: Counter) -> Array:
    return convolution(mixer.conv, x, count)


def attention(mixer: Any, x: Array, count: Counter) -> Array:
    q, k, v = np.split(linear(x, mixer.qkv, count), 3)
    mixed = np.zeros_like(x)
    keys = positions(x.shape[1:])
    for at in keys:
        for head in range(mixer.heads):
            own = slice(head * mixer.head_dim, (head + 1) * mixer.head_dim)
            scores = [count.dot(column(q[own], at), column(k[own], n)) / math.sqrt(mixer.head_dim) for n in keys]
            count.written += len(scores)
            weights = softmax(scores, count)
            for channel in range(own.start, own.stop):
                mixed[(channel, *at)] = count.dot(np.array(weights), np.array([v[(channel, *n)] for n in keys]))
                count.written += 1
    return linear(mixed, mixer.proj, count)


NAIVE: dict[str, Callable[[Any, Array, Counter], Array]] = {
    "identity": identity,
    "pooling": pooling,
    "conv": conv,
    "sep_conv": conv,
    "attention": attention,
}
OPTIONS: dict[str, dict[str, Any]] = {"attention": {"head_dim": 3}}
