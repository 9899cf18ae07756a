"""flex_attention as a backend of local attention: on a CPU, forward only."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mixlab.errors import UserError
from mixlab.ops import local_attention
from mixlab.ops import local_attention_flex as flex
from mixlab.ops.neighbours import Window, dense_bias_entries, dense_mask
from tests.ops.problems import choice, compare, random_problem

DEVICE = torch.device("cpu")


def both(problem: dict[str, Any]) -> list[dict[str, torch.Tensor]]:
    """Output and log-sum-exp of flex and of the definition."""
    with torch.no_grad():
        results = [local_attention(**problem, backend=b, return_lse=True) for b in ("flex", "reference")]
    return [dict(zip(("out", "lse"), r, strict=True)) for r in results]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("seed", range(6))
def test_random_problem(seed: int, dtype: torch.dtype) -> None:
    problem = random_problem(seed, dtype)
    problem |= {"extra_kv": None, "extra_bias": None}
    torch._dynamo.reset()
    got, want = both(problem)
    assert got["out"].dtype == dtype
    compare(got, want, dtype)


@pytest.mark.parametrize("border", ["clip", "shift"])
@pytest.mark.parametrize(
    ("size", "kernel", "dilation"), [((12, 11), (3, 5), (1, 2)), ((9,), (5,), (3,)), ((4, 3, 5), (3, 1, 3), (2, 1, 1))]
)
def test_mask_and_bias_entries(
    size: tuple[int, ...], kernel: tuple[int, ...], dilation: tuple[int, ...], border: str
) -> None:
    """Of true positions those of the operator; padding sees itself and nothing else does: no row is empty."""
    window, tokens = Window(kernel, dilation, border), math.prod(size)
    at = torch.arange(flex.padded_length(tokens))
    zero = torch.zeros((), dtype=torch.long)
    seen = flex.sees(size, window, zero, zero, at[:, None], at)
    assert seen.shape == (flex.padded_length(tokens),) * 2
    assert len(at) % flex.BLOCK == 0
    mask = dense_mask(size, window, device=DEVICE)
    assert torch.equal(seen[:tokens, :tokens], mask)
    assert torch.equal(seen[tokens:, tokens:], torch.eye(len(at) - tokens, dtype=torch.bool))
    assert not seen[:tokens, tokens:].any()
    assert not seen[tokens:, :tokens].any()
    entries = flex._bias_entry(size, window, at[:, None], at)
    assert torch.equal(entries[:tokens, :tokens][mask], dense_bias_entries(size, window, device=DEVICE)[mask])
    assert int(entries.min()) >= 0
    assert int(entries.max()) < math.prod(window.bias_shape())


def test_padded_lengths() -> None:
    assert [flex.padded_length(n) for n in (1, 49, 128, 129, 196, 784, 3136)] == [128, 128, 128, 256, 256, 896, 3200]


def test_masks_are_kept() -> None:
    window = Window((3, 3), (1, 1))
    assert flex.block_mask((5, 6), window, DEVICE) is flex.block_mask((5, 6), window, DEVICE)


def test_refusals() -> None:
    q = torch.randn(1, 2, 16, 5, 5)
    token = torch.randn(1, 2, 1, 16)
    with pytest.raises(UserError, match="no backward pass on a CPU, try backend='auto'"):
        local_attention(q.clone().requires_grad_(), q, q, 3, backend="flex")
    with pytest.raises(UserError, match="extra keys"):
        local_attention(q, q, q, 3, extra_kv=(token, token), backend="flex")
    with pytest.raises(UserError, match="an empty batch"):
        local_attention(q[:0], q[:0], q[:0], 3, backend="flex")
    assert choice({"q": q, "k": q, "v": q, "kernel_size": 3}).others["flex"] == "only by name: for comparison"
    made = choice({"q": q.clone().requires_grad_(), "k": q, "v": q, "kernel_size": 3})
    assert made.others["flex"] == "it has no backward pass on a CPU"
