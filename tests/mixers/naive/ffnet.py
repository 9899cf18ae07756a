"""FFNet's token mixer, in evaluation mode."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.mixers.naive.base import Array, Counter, column, is_inside, positions, window


def _batch_norm(x: Array, norm: Any, count: Counter) -> Array:
    """Five operations an element by the package's convention, whatever the mode."""
    weight, bias, mean, variance = (
        t.detach().double().numpy() for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )
    y = np.zeros_like(x)
    for c in range(len(x)):
        for at in positions(x.shape[1:]):
            y[(c, *at)] = (x[(c, *at)] - mean[c]) / math.sqrt(variance[c] + norm.eps) * weight[c] + bias[c]
            count.other += 5
            count.written += 1
    return y


def _query(x: Array, part: Any, count: Counter) -> Array:
    weight = part.conv.weight.detach().double().flatten(1).numpy()
    y = np.zeros_like(x)
    for at in positions(x.shape[1:]):
        for row in range(len(weight)):
            y[(row, *at)] = count.dot(weight[row], column(x, at))
            count.written += 1
    return _batch_norm(y, part.norm, count)


def _filter(x: Array, layer: Any, count: Counter) -> Array:
    """Each channel in its own window; zeros outside the image are multiplied too."""
    weight = layer.weight.detach().double().numpy()[:, 0]
    kernel = weight.shape[1:]
    y = np.zeros_like(x)
    for c in range(len(x)):
        for at in positions(x.shape[1:]):
            values = [x[(c, *n)] if is_inside(n, x.shape[1:]) else 0.0 for n in window(at, kernel, (1,) * len(kernel))]
            y[(c, *at)] = count.dot(np.array([weight[(c, *tap)] for tap in positions(kernel)]), np.array(values))
            count.written += 1
    return y


def _two_windows(x: Array, part: Any, count: Counter) -> Array:
    branches = [_batch_norm(_filter(x, branch.conv, count), branch.norm, count) for branch in (part.wide, part.narrow)]
    y = np.zeros_like(x)
    for at in positions(x.shape):
        y[at] = branches[0][at] + branches[1][at]
        count.other += 1
        count.written += 1
    return y


def _gelu(x: Array, count: Counter) -> Array:
    y = np.zeros_like(x)
    for at in positions(x.shape):
        y[at] = x[at] * 0.5 * (1 + math.erf(x[at] / math.sqrt(2)))
        count.other += 1
        count.written += 1
    return y


def ffnified_attention(mixer: Any, x: Array, count: Counter) -> Array:
    coefficients = _gelu(_two_windows(_query(x, mixer.query, count), mixer.key, count), count)
    return _two_windows(coefficients, mixer.value, count)


NAIVE: dict[str, Callable[[Any, Array, Counter], Array]] = {"ffnified_attention": ffnified_attention}
OPTIONS: dict[str, dict[str, Any]] = {"ffnified_attention": {"kernel_size": 3}}
