"""What a part costs for one image of a given size.

Conventions, the same for every part:

- Multiply-accumulates (MACs) count convolutions and matrix products, in three numbers. ``needed`` is what the formula
  asks
  for (a convolution multiplies its zero padding, as its definition says; local attention has only the neighbours inside
  the image). ``computed`` is what the chosen code path does. ``dense`` is what the same part would do if every position
  met every other one; parts without attention have ``dense`` equal to ``needed``.
- ``other_ops`` are all other arithmetic operations: additions of pooling, divisions, exponentials, normalisation.
- ``activations`` are elements written: the outputs of every operation that counts in the numbers above.
- Additions of a bias, of a residual, and copies count nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

Size = tuple[int, ...]


@dataclass(frozen=True)
class Cost:
    """Cost of one part for one image (batch 1)."""

    parameters: int = 0
    macs_needed: int = 0
    macs_computed: int = 0
    macs_dense: int = 0
    other_ops: int = 0
    activations: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def times(self, n: int) -> Cost:
        """The cost of running the same part ``n`` times (its parameters are shared)."""
        values = {f.name: getattr(self, f.name) * n for f in fields(self)}
        return Cost(**{**values, "parameters": self.parameters})

    def again(self) -> Cost:
        """The cost of one more run of a part whose parameters are counted elsewhere."""
        return replace(self, parameters=0)


def macs(count: int, *, parameters: int = 0, activations: int = 0) -> Cost:
    """The cost of ``count`` MACs that are needed, computed and dense alike."""
    return Cost(parameters, count, count, count, 0, activations)


def convolution(dim_in: int, dim_out: int, kernel: Size, out_size: Size, *, groups: int = 1, bias: bool = True) -> Cost:
    """Cost of a convolution with output of ``out_size``: ``out · (C_in / groups) · prod(kernel) · C_out`` MACs."""
    weights = dim_in // groups * math.prod(kernel) * dim_out
    tokens = math.prod(out_size)
    return macs(weights * tokens, parameters=weights + dim_out * bias, activations=dim_out * tokens)


def linear(dim_in: int, dim_out: int, tokens: int, *, bias: bool = True) -> Cost:
    """Cost of a linear layer on ``tokens`` positions."""
    return convolution(dim_in, dim_out, (1,), (tokens,), bias=bias)


def normalisation(dim: int, tokens: int, *, parameters: int) -> Cost:
    """Cost of a norm: mean, centring, square, variance, scaling: 5 operations an element, as fvcore counts."""
    return Cost(parameters=parameters, other_ops=5 * dim * tokens, activations=dim * tokens)


def softmax(entries: int, rows: int) -> Cost:
    """Cost of a softmax over ``entries`` scores in ``rows`` rows: subtract the maximum, exponential, sum, divide."""
    return Cost(other_ops=4 * entries - rows, activations=entries)
