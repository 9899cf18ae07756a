"""The definition of local attention: all windows gathered, one softmax a query. O(N K d) memory; the oracle.

For query ``i`` with neighbours ``j`` in its window and extra keys ``e``::

    s_ij = cap(scale q_i · k_j + bias[j - i])        s_ie = cap(scale q_i · k_e + extra_bias_ie)
    out_i = sum_j p_ij v_j + sum_e p_ie v_e          p_i = softmax over all j and e together
    lse_i = log(sum_j exp s_ij + sum_e exp s_ie)     cap(s) = softcap tanh(s / softcap), or s
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mixlab.ops.local_attention_problem import Problem, wide
from mixlab.ops.neighbours import Window, bias_entries, inside, key_positions


def reference(p: Problem) -> tuple[Tensor, Tensor]:
    """``out (B, heads, d, *spatial)`` and ``lse (B, heads, *spatial)``."""
    size, window, dtype = p.size, p.window, p.q.dtype
    p = p.to(wide(dtype))
    q = p.scale * p.q.flatten(3)  # (B, heads, d, N)
    near = key_positions(size, window, device=q.device).t()  # (N, K)
    scores = torch.einsum("bhdn,bhdnk->bhnk", q, p.k.flatten(3)[..., near])
    if p.bias is not None:
        scores = scores + p.bias.flatten(1)[:, bias_entries(size, window, device=q.device).t()]  # (heads, N, K)
    scores = cap(scores, p.softcap).masked_fill(~inside(size, window, device=q.device).t(), -math.inf)
    extra = "bhed" if p.shared_extra else "bhned"
    if p.extra_k is not None:
        far = torch.einsum(f"bhdn,{extra}->bhne", q, p.extra_k if p.shared_extra else p.extra_k.flatten(2, -3))
        if p.extra_bias is not None:
            far = far + p.extra_bias.expand(-1, -1, *size, -1).flatten(2, -2)
        scores = torch.cat([scores, cap(far, p.softcap)], dim=3)
    weights = scores.softmax(dim=3)  # a query sees itself: no row is empty
    out = torch.einsum("bhnk,bhdnk->bhdn", weights[..., : near.shape[1]], p.v.flatten(3)[..., near])
    if p.extra_v is not None:
        values = p.extra_v if p.shared_extra else p.extra_v.flatten(2, -3)
        out = out + torch.einsum(f"bhne,{extra}->bhdn", weights[..., near.shape[1] :], values)
    return out.unflatten(3, size).to(dtype), scores.logsumexp(dim=3).unflatten(2, size)


def cap(scores: Tensor, softcap: float | None) -> Tensor:
    """Scores bounded by ``softcap``."""
    return scores if softcap is None else softcap * (scores / softcap).tanh()


def reference_aggregate(weights: Tensor, v: Tensor, window: Window) -> Tensor:
    """``y_i = sum_j weights_ij v_j`` over the neighbours that exist: ``(B, heads, d, *spatial)``."""
    size, dtype = tuple(v.shape[3:]), v.dtype
    near = key_positions(size, window, device=v.device).t()  # (N, K)
    exists = inside(size, window, device=v.device).t()
    weights = weights.flatten(2, -2).to(wide(dtype)).masked_fill(~exists, 0)  # (B, heads, N, K)
    out = torch.einsum("bhnk,bhdnk->bhdn", weights, v.flatten(3).to(weights.dtype)[..., near])
    return out.unflatten(3, size).to(dtype)
