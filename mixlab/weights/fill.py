"""Deterministic parameters and inputs: for stand-in weights, and for the parity vectors of the test suite.

Every number depends only on a name and an index, so no weights need to be stored:
``fill_(state)`` gives the parameters of a model, ``image(shape)`` its input. The numbers must never change: the
official implementations were run with them.
"""

from __future__ import annotations

import hashlib
import zlib

import numpy as np
import torch

# Counters and structural constants: left as constructed (compared with the end of the key).
KEEP = ("num_batches_tracked", "Relpos.angle", "Relpos.decay", "relative_coords_table", "attn_mask", "out_zero_mask")
# Position terms and learned tokens of any shape (searched in the last part of the key):
# pos_embed, relative_pos_bias_local, relative_position_bias_table, cls_token, learnable_tokens, ...
SMALL = ("pos_embed", "_pos", "_token", "query_embedding", "learnable_bias", "attention_biases")


def uniform(name: str, n: int) -> np.ndarray:
    """n float64 in [-1, 1): the top 53 bits of splitmix64(index + (crc32(name) << 32))."""
    z = np.arange(n, dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()) << 32)
    z = z + np.uint64(0x9E3779B97F4A7C15)  # uint64 arrays wrap modulo 2**64, as splitmix64 needs
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 2.0**-52 - 1.0


def values(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float64 values of one state-dict entry; the first rule that applies decides."""
    n = int(np.prod(shape))
    u, last = uniform(key, n).reshape(shape), key.rpartition(".")[2]
    if last == "running_mean":
        return 0.1 * u
    if last == "running_var":
        return 1.0 + 0.5 * np.abs(u)
    if last == "random_matrix":  # row softmax
        return np.exp(4.0 * u) / np.exp(4.0 * u).sum(-1, keepdims=True)
    if last == "complex_weight":  # elementwise filter
        return u
    if any(s in last for s in SMALL):
        return 0.2 * u
    if n == max(shape, default=1):  # vector or scalar, whatever dimensions of size 1 it has
        if "bias" in last:
            return 0.1 * u
        if "temperature" in last:
            return 1.4 + 0.3 * u
        return 0.6 + 0.3 * u if "scale" in last or "gamma" in last else 1.0 + 0.2 * u
    gain = 0.5 if len(shape) > 2 and shape[1] == 1 else 1.0  # 0.5 for depthwise kernels
    return gain * u * np.sqrt(3.0 * shape[0] / n)  # fan_in = numel / shape[0]


def fill_(state: dict[str, torch.Tensor]) -> None:
    """Fill in place every floating entry by its official key (float64 values, cast to its type)."""
    for key, tensor in state.items():
        if tensor.is_floating_point() and not key.endswith(KEEP):
            tensor.data.copy_(torch.from_numpy(np.asarray(values(key, tuple(tensor.shape)))))


def image(shape: tuple[int, ...]) -> torch.Tensor:
    """The input of that shape: uniform values rounded to float32, row-major."""
    return torch.from_numpy(uniform("input", int(np.prod(shape))).reshape(shape)).float()


def key_digest(state: dict[str, torch.Tensor]) -> str:
    """keys_sha256: sha256 of the sorted 'key:2x3' lines joined by newlines (a scalar: 'key:')."""
    lines = sorted(f"{k}:{'x'.join(map(str, v.shape))}" for k, v in state.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
