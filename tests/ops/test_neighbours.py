"""Tables of neighbours against the rules, spelled out position by position."""

from __future__ import annotations

import itertools

import pytest
import torch

from mixlab.ops.neighbours import Window, bias_entries, dense_bias_entries, dense_mask, inside, key_positions

CPU = torch.device("cpu")
AXES = [(n, k, step) for n in (1, 2, 5, 8) for k in (1, 3, 5) for step in (1, 2, 3)]


def keys_of(i: int, n: int, k: int, step: int, border: str) -> list[int]:
    """The keys that query ``i`` of an axis sees."""
    if border == "clip":
        return [j for j in range(i - k // 2 * step, i + k // 2 * step + 1, step) if 0 <= j < n]
    group = list(range(i % step, n, step))
    first = min(max(group.index(i) - k // 2, 0), max(len(group) - k, 0))
    return group[first : first + k]


@pytest.mark.parametrize("border", ["clip", "shift"])
@pytest.mark.parametrize(("n", "k", "step"), AXES)
def test_an_axis(n: int, k: int, step: int, border: str) -> None:
    window = Window((k,), (step,), border)
    key, exists = key_positions((n,), window, device=CPU), inside((n,), window, device=CPU)
    entries = bias_entries((n,), window, device=CPU)
    mask, dense_entries = dense_mask((n,), window, device=CPU), dense_bias_entries((n,), window, device=CPU)
    for i in range(n):
        want = keys_of(i, n, k, step, border)
        assert key[:, i][exists[:, i]].tolist() == want
        assert mask[i].nonzero().flatten().tolist() == want
        distance = [(j - i) // step + (k // 2 if border == "clip" else k - 1) for j in want]
        assert entries[:, i][exists[:, i]].tolist() == distance
        assert dense_entries[i, want].tolist() == distance
    for table, width in ((entries, window.bias_shape()[0]), (dense_entries, window.bias_shape()[0]), (key, n)):
        assert table.min() >= 0
        assert table.max() < width


@pytest.mark.parametrize("border", ["clip", "shift"])
@pytest.mark.parametrize(("size", "kernel", "dilation"), [((4, 5), (3, 5), (1, 2)), ((3, 1, 4), (3, 3, 5), (1, 1, 1))])
def test_grids(size: tuple[int, ...], kernel: tuple[int, ...], dilation: tuple[int, ...], border: str) -> None:
    window = Window(kernel, dilation, border)
    key, exists = key_positions(size, window, device=CPU), inside(size, window, device=CPU)
    mask = dense_mask(size, window, device=CPU)
    raster = torch.arange(mask.shape[0]).reshape(size)
    for i, at in enumerate(itertools.product(*map(range, size))):
        axes = [keys_of(a, n, k, s, border) for a, n, k, s in zip(at, size, kernel, dilation, strict=True)]
        want = [int(raster[j]) for j in itertools.product(*axes)]
        assert key[:, i][exists[:, i]].tolist() == want
        assert mask[i].nonzero().flatten().tolist() == want
