"""Local attention with its extensions and global tokens."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.mixers.naive.base import Array, Counter, Index, column, is_inside, linear, positions, softmax, window

STEPS = ((-1, +1), (-1, -1), (-2, +1), (-2, -1), (-3, +1), (-3, -1))  # axis from the last, and sign, head by head


def attend(mixer: Any, x: Array, tokens: Array, count: Counter) -> tuple[Array, Array]:
    """Map ``(C, *spatial)`` and tokens ``(C, G)`` to the same shapes."""
    q, k, v = _projected(mixer, x, count)
    token_q, token_k, token_v = _projected(mixer, tokens, count)
    everywhere, everyone = positions(x.shape[1:]), positions(tokens.shape[1:])
    mixed, mixed_tokens = np.zeros_like(x), np.zeros_like(tokens)
    for head in range(mixer.heads):
        own = slice(head * mixer.head_dim, (head + 1) * mixer.head_dim)
        for at in everywhere:
            keys = _neighbours(mixer, at, x.shape[1:])
            scores = [
                _score(mixer, column(q[own], at), column(k[own], n), _bias(mixer, head, at, n), count) for n in keys
            ]
            scores += [_score(mixer, column(q[own], at), column(token_k[own], g), 0.0, count) for g in everyone]
            weights = softmax(scores, count)
            for channel in range(own.start, own.stop):
                values = [v[(channel, *n)] for n in keys] + [token_v[(channel, *g)] for g in everyone]
                mixed[(channel, *at)] = count.dot(np.array(weights), np.array(values))
                count.written += 1
        for at in everyone:
            scores = [_score(mixer, column(token_q[own], at), column(k[own], n), 0.0, count) for n in everywhere]
            scores += [_score(mixer, column(token_q[own], at), column(token_k[own], g), 0.0, count) for g in everyone]
            weights = softmax(scores, count)
            for channel in range(own.start, own.stop):
                values = [v[(channel, *n)] for n in everywhere] + [token_v[(channel, *g)] for g in everyone]
                mixed_tokens[(channel, *at)] = count.dot(np.array(weights), np.array(values))
                count.written += 1
    return _out(mixer, mixed, x, count), _out(mixer, mixed_tokens, tokens, count)


def _projected(mixer: Any, x: Array, count: Counter) -> list[Array]:
    q, k, v = np.split(linear(x, mixer.qkv, count), 3)
    if mixer.qk_scale is None:
        return [q, k, v]
    q, k = _unit(mixer, q, count), _unit(mixer, k, count)
    for channel, at in itertools.product(range(len(q)), positions(x.shape[1:])):
        q[(channel, *at)] *= mixer.qk_scale[channel // mixer.head_dim].item()
        count.other += 1
        count.written += 1
    return [q, k, v]


def _unit(mixer: Any, x: Array, count: Counter) -> Array:
    y = np.zeros_like(x)
    for head, at in itertools.product(range(mixer.heads), positions(x.shape[1:])):
        own = range(head * mixer.head_dim, (head + 1) * mixer.head_dim)
        total = 0.0
        for channel in own:
            total += x[(channel, *at)] ** 2
            count.other += 2  # square and sum
        for channel in own:
            y[(channel, *at)] = x[(channel, *at)] / math.sqrt(total / mixer.head_dim + 1e-6)
            count.other += 1
            count.written += 1
    return y


def _score(mixer: Any, q: Array, k: Array, bias: float, count: Counter) -> float:
    score = count.dot(q, k) / math.sqrt(mixer.head_dim) + bias
    count.written += 1
    if mixer.softcap is None:
        return score
    count.other += 3
    count.written += 1
    return float(mixer.softcap * math.tanh(score / mixer.softcap))


def _neighbours(mixer: Any, at: Index, size: Index) -> list[Index]:
    if mixer.border == "clip":
        return [n for n in window(at, mixer.kernel_size, mixer.dilation) if is_inside(n, size)]
    axes = []
    for p, n, k, d in zip(at, size, mixer.kernel_size, mixer.dilation, strict=True):
        group = [i for i in range(n) if i % d == p % d]
        first = min(max(group.index(p) - k // 2, 0), max(len(group) - k, 0))
        axes.append(group[first : first + k])
    return list(itertools.product(*axes))


def _bias(mixer: Any, head: int, at: Index, n: Index) -> float:
    offset = [b - a for a, b in zip(at, n, strict=True)]
    axis, sign = STEPS[head % (2 * len(at))]
    bias = sign * mixer.slopes * offset[axis]
    if mixer.relative_bias is not None:
        table = mixer.relative_bias[head].detach().double().numpy()
        centre = [s // 2 for s in table.shape]
        bias += table[tuple(c + o // d for c, o, d in zip(centre, offset, mixer.dilation, strict=True))]
    return float(bias)


def _out(mixer: Any, mixed: Array, x: Array, count: Counter) -> Array:
    y = linear(mixed, mixer.proj, count)
    if mixer.subtract_input:
        count.other += x.size
        count.written += x.size
        y = y - x
    return y


def local_attention(mixer: Any, x: Array, count: Counter) -> Array:
    return attend(mixer, x, np.zeros((len(x), 0)), count)[0]


NAIVE: dict[str, Callable[[Any, Array, Counter], Array]] = {"local_attention": local_attention}
OPTIONS: dict[str, dict[str, Any]] = {"local_attention": {"head_dim": 3}}
