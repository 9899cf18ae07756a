"""Which keys each query of a window sees, axis by axis and together, for both rules at the image's border.

* ``clip``: the window is centred on its query; neighbours outside the image do not exist.
* ``shift``: along each axis the window moves inward until it lies inside, so that every query keeps all its keys. With
  a dilation the rule holds among positions of the same remainder; a window longer than such a group sees all of it.

A window is a box, so everything follows from one table an axis: for each of its ``n`` positions and ``k`` neighbours
the key's position, whether it exists, and its distance to the query in steps of the dilation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mixlab.ops.size_cache import size_cached

BORDERS = ("clip", "shift")
Ints = tuple[int, ...]


class Window(NamedTuple):
    """Kernel and dilation, one int an axis, and the rule at the border."""

    kernel: Ints
    dilation: Ints
    border: str = "clip"

    def bias_shape(self) -> Ints:
        """Entries of a bias an axis: one an offset, which for shifted windows goes from ``1 - k`` to ``k - 1``."""
        return self.kernel if self.border == "clip" else tuple(2 * k - 1 for k in self.kernel)

    def centre(self) -> Ints:
        """The bias's entry of the query itself."""
        return tuple(n // 2 for n in self.bias_shape())

    def covers(self, size: Sequence[int]) -> bool:
        """Every query sees every key."""
        return max(self.dilation) == 1 and all(
            k >= n if self.border == "shift" else k // 2 >= n - 1 for n, k in zip(size, self.kernel, strict=True)
        )

    def keeps_all(self, size: Sequence[int]) -> bool:
        """No query of a shifted window has fewer keys than the window has places."""
        axes = zip(size, self.kernel, self.dilation, strict=True)
        return self.border == "shift" and all(n // step >= k for n, k, step in axes)


@size_cached(max_entries=128)
def axis_table(n: int, k: int, step: int, border: str, *, device: torch.device) -> Tensor:
    """(3, k, n): position of the key, clamped to the axis; 1 where it exists; its distance in steps."""
    query = torch.arange(n, device=device)
    place = torch.arange(k, device=device)[:, None]
    if border == "clip":
        distance = (place - k // 2).expand(k, n)
        key = query + distance * step
        exists = (key >= 0) & (key < n)
    else:
        own, rest = query // step, query % step  # index in the group, and the group
        length = (n - rest + step - 1) // step
        first = torch.minimum(own - k // 2, length - k).clamp(min=0)
        key = rest + (first + place) * step
        exists = first + place < length
        distance = first + place - own
    return torch.stack([key.clamp(min=0).minimum(query[-1:]), exists.long(), distance])


def axis_tables(size: Sequence[int], window: Window, device: torch.device) -> list[Tensor]:
    """:func:`axis_table` of each axis."""
    axes = zip(size, window.kernel, window.dilation, strict=True)
    return [axis_table(n, k, step, window.border, device=device) for n, k, step in axes]


def together(axes: Sequence[Tensor], factors: Sequence[int]) -> Tensor:
    """Tables (k_a, n_a) of the axes as one, (prod k, prod n), row-major: ``t <- t factor_a + table_a``."""
    table = axes[0]
    for axis, factor in zip(axes[1:], factors[1:], strict=True):
        table = (table[:, None, :, None] * factor + axis[None, :, None, :]).flatten(0, 1).flatten(1, 2)
    return table


@size_cached()
def key_positions(size: Ints, window: Window, *, device: torch.device) -> Tensor:
    """(K, N): raster position of each neighbour; of some position where it does not exist."""
    return together([t[0] for t in axis_tables(size, window, device)], size)


@size_cached()
def inside(size: Ints, window: Window, *, device: torch.device) -> Tensor:
    """(K, N) bool: the neighbour exists. Every query sees itself, so no column is empty."""
    tables = axis_tables(size, window, device)
    return together([t[1] - 1 for t in tables], [1] * len(size)) == 0  # a sum of zeros and minus ones


@size_cached()
def bias_entries(size: Ints, window: Window, *, device: torch.device) -> Tensor:
    """(K, N): which entry of a flat bias each neighbour has."""
    tables = axis_tables(size, window, device)
    return together([t[2] + c for t, c in zip(tables, window.centre(), strict=True)], window.bias_shape())


@size_cached()
def dense_mask(size: Ints, window: Window, *, device: torch.device) -> Tensor:
    """(N, N) bool: query (first) sees key."""
    axes = []
    for n, table in zip(size, axis_tables(size, window, device), strict=True):
        is_key = (table[0][:, :, None] == torch.arange(n, device=device)) & table[1].bool()[:, :, None]
        axes.append(is_key.any(dim=0).long() - 1)
    return together(axes, [1] * len(size)) == 0


@size_cached()
def dense_bias_entries(size: Ints, window: Window, *, device: torch.device) -> Tensor:
    """(N, N): which entry of a flat bias each pair has; some entry where the query does not see the key."""
    axes = []
    for n, step, width, centre in zip(size, window.dilation, window.bias_shape(), window.centre(), strict=True):
        at = torch.arange(n, device=device)
        axes.append(((at - at[:, None]) // step + centre).clamp(0, width - 1))
    return together(axes, window.bias_shape())
