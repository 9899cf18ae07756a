"""Local attention: every query attends to the window centred on it, clipped at the image's borders.

``softmax_j(scale · q_i · k_j) v_j`` over the neighbours ``j`` of ``i`` that lie inside the image: a corner of a 3x3
window has 4 keys. (Neighbourhood attention, as NATTEN defines it, shifts the window inward instead; that rule is not
offered yet.)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mixlab.errors import Quoted, expected, unknown
from mixlab.ops import local_attention_pure as pure
from mixlab.ops.windows import PerAxis, check_spatial_dims, odd_kernel, per_axis

BACKENDS = ("auto", "pure", "reference")


def local_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kernel_size: PerAxis,
    *,
    dilation: PerAxis = 1,
    scale: float | None = None,
    backend: str = "auto",
) -> Tensor:
    """Attention within windows, with gradients to q, k and v.

    Args:
        q, k, v: ``(B, heads, head_dim, *spatial)`` with one to three spatial axes, one shape.
        kernel_size: odd window, an int or one per axis in ``(D, H, W)`` order.
        dilation: distance between neighbours in a window, likewise.
        scale: factor on the scores; ``head_dim ** -0.5`` by default.
        backend: ``reference`` (the definition, dense), ``pure`` (the fastest PyTorch-only path for the shape), or
            ``auto``
            (today ``pure``).

    Returns:
        ``(B, heads, head_dim, *spatial)``.

    Raises:
        UserError: shapes differ, a kernel is even, or the backend is unknown.
    """
    spatial_dims = check_spatial_dims(q.ndim - 3, "local_attention")
    if not q.shape == k.shape == v.shape:
        got = Quoted(f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}")
        raise expected("local_attention", "q, k and v of one shape (B, heads, head_dim, *spatial)", got)
    kernel = odd_kernel(kernel_size, spatial_dims, "local_attention")
    steps = per_axis(dilation, spatial_dims, "local_attention dilation")
    scale = q.shape[2] ** -0.5 if scale is None else scale
    if backend == "reference":
        return reference(q, k, v, kernel, steps, scale)
    if backend in ("auto", "pure"):
        return pure.PATHS[choose_path(q.shape[3:], kernel, steps)](q, k, v, kernel, steps, scale)
    raise unknown("local_attention backend", backend, BACKENDS)


def reference(
    q: Tensor, k: Tensor, v: Tensor, kernel: tuple[int, ...], dilation: tuple[int, ...], scale: float
) -> Tensor:
    """The definition: all scores, those outside the window masked, softmax, weighted sum. O(N^2) memory."""
    size = q.shape[3:]
    positions = torch.stack(torch.meshgrid(*(torch.arange(n, device=q.device) for n in size), indexing="ij"), dim=-1)
    positions = positions.reshape(-1, len(size))  # (N, spatial_dims), raster order
    distance = positions[:, None] - positions[None, :]  # (N, N, spatial_dims)
    inside = torch.ones_like(distance[..., 0], dtype=torch.bool)
    for axis, (width, step) in enumerate(zip(kernel, dilation, strict=True)):
        inside &= (distance[..., axis] % step == 0) & (distance[..., axis].abs() <= width // 2 * step)
    scores = torch.einsum("bhdn,bhdm->bhnm", q.flatten(3) * scale, k.flatten(3))
    weights = scores.masked_fill(~inside, -math.inf).softmax(dim=-1)  # the centre is always inside: no empty row
    return torch.einsum("bhnm,bhdm->bhdn", weights, v.flatten(3)).reshape(q.shape)


def choose_path(size: tuple[int, ...], kernel: tuple[int, ...], dilation: tuple[int, ...]) -> str:
    """The PyTorch-only path for a grid: ``dense``, ``bands`` or ``shift``.

    Measured with ``benchmarks/local_attention.py`` (fp32, one thread, batch 8, head size 16, with backward): dense
    wins on small grids; bands of rows for wide windows and middling grids; the loop over offsets otherwise. A traced
    graph takes ``shift``, whose operations do not depend on the size, so that exported height and width stay dynamic.
    """
    if torch.compiler.is_compiling():
        return "shift"
    tokens = math.prod(size)
    if tokens <= DENSE_TOKENS:
        return "dense"
    banded = math.prod(kernel) >= BANDS_WINDOW or tokens <= BANDS_TOKENS
    return "bands" if banded and len(size) > 1 and max(dilation) == 1 else "shift"


DENSE_TOKENS = 196
BANDS_TOKENS = 512
BANDS_WINDOW = 25


def computed_pairs(size: tuple[int, ...], kernel: tuple[int, ...], dilation: tuple[int, ...]) -> int:
    """(query, key) pairs that the chosen path multiplies, masked ones included."""
    tokens = math.prod(size)
    path = choose_path(size, kernel, dilation)
    if path == "dense":
        return tokens**2
    if path == "shift":
        return tokens * math.prod(kernel)
    rows, bands = pure.band_layout(size[0])
    return bands * rows * (rows + kernel[0] - 1) * (tokens // size[0]) ** 2
