from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from mixlab.ops.size_cache import size_cached


def counting() -> tuple[list[int], object]:
    calls: list[int] = []

    @size_cached(max_entries=2)
    def ramp(n: int, *, device: torch.device) -> Tensor:
        calls.append(n)
        return torch.arange(n, device=device)

    return calls, ramp


def test_made_once_bounded_and_outside_inference_mode() -> None:
    calls, ramp = counting()
    cpu = torch.device("cpu")
    with torch.inference_mode():
        first = ramp(3, device=cpu)  # type: ignore[operator]
    assert not first.is_inference()
    assert ramp(3, device=cpu) is first  # type: ignore[operator]
    for n in (4, 5, 3):
        ramp(n, device=cpu)  # type: ignore[operator]
    assert calls == [3, 4, 5, 3]
    assert len(ramp.entries) == 2  # type: ignore[attr-defined]


def test_fake_tensors_are_not_kept() -> None:
    _, ramp = counting()
    with FakeTensorMode():
        ramp(3, device=torch.device("cpu"))  # type: ignore[operator]
    assert not ramp.entries  # type: ignore[attr-defined]
    assert type(ramp(3, device=torch.device("cpu"))) is Tensor  # type: ignore[operator]
