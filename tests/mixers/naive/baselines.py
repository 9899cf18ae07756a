"""The mixers of the MetaFormer baselines and of PoolFormer's hybrids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.mixers.naive.base import Array, Counter, linear, positions
from tests.mixers.naive.plain import convolution


def inverted_sep_conv(mixer: Any, x: Array, count: Counter) -> Array:
    wide = linear(x, mixer.expand, count)
    scale, bias = mixer.act.scale.item(), mixer.act.bias.item()
    for c in range(len(wide)):
        for at in positions(x.shape[1:]):
            value = max(wide[(c, *at)], 0.0)
            wide[(c, *at)] = scale * value * value + bias
            count.other += 1
            count.written += 1
    return linear(convolution(mixer.conv, wide, count), mixer.reduce, count)


def grid_matrix(matrix: Array, x: Array, count: Counter) -> Array:
    size = x.shape[1:]
    y = np.zeros_like(x)
    for c in range(len(x)):
        column = np.array([x[(c, *at)] for at in positions(size)])
        for row, at in enumerate(positions(size)):
            y[(c, *at)] = count.dot(matrix[row], column)
            count.written += 1
    return y


def spatial_fc(mixer: Any, x: Array, count: Counter) -> Array:
    return grid_matrix(mixer.fc.weight.detach().double().numpy(), x, count)


def random_mixing(mixer: Any, x: Array, count: Counter) -> Array:
    return grid_matrix(mixer.random_matrix.double().numpy(), x, count)


NAIVE: dict[str, Callable[[Any, Array, Counter], Array]] = {
    "inverted_sep_conv": inverted_sep_conv,
    "spatial_fc": spatial_fc,
    "random_mixing": random_mixing,
}
OPTIONS: dict[str, dict[str, Any]] = {"inverted_sep_conv": {"kernel_size": 3}}
