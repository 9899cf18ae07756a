"""Activations: formulas, and gradients of the hand-written ones."""

from __future__ import annotations

import pytest
import torch

from mixlab.activations import ACTIVATIONS, SquaredReLU, StarReLU, linear_after
from mixlab.ops import Pointwise


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_gradients(name: str) -> None:
    act = ACTIVATIONS[name]().double()
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(act, (x,))
    assert torch.autograd.gradgradcheck(act, (x,))


def test_star_relu() -> None:
    act = StarReLU(scale=0.5, bias=-0.25)
    x = torch.tensor([-2.0, 0.0, 3.0])
    assert act(x).tolist() == [-0.25, -0.25, 4.25]
    with torch.no_grad():
        assert SquaredReLU()(x).tolist() == [0.0, 0.0, 9.0]
    assert x.tolist() == [-2.0, 0.0, 3.0]  # inputs are left alone


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_linear_after_is_the_linear_layer_after_the_activation(name: str, bias: bool) -> None:
    act, linear = ACTIVATIONS[name]().double(), Pointwise(3, 5, bias=bias).double()
    for parameter in act.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 3, 7, 5, dtype=torch.float64)
    parameters = [*act.parameters(), *linear.parameters()]
    together, apart = linear_after(act, x, linear), linear(act(x))
    torch.testing.assert_close(together, apart)
    weights = torch.randn_like(apart)
    for a, b in zip(
        torch.autograd.grad(together, parameters, weights), torch.autograd.grad(apart, parameters, weights), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_a_watched_layer_is_called() -> None:
    """Hooks, and layers of another kind (adapters), take no short cut."""
    act, linear, x = StarReLU(), Pointwise(3, 5), torch.randn(2, 3, 7, 5)
    calls: list[str] = []
    linear.register_forward_hook(lambda *_: calls.append("linear"))
    linear_after(act, x, linear)
    assert calls == ["linear"]


def test_gradients_of_functions() -> None:
    x = torch.randn(3, 4)
    torch.testing.assert_close(torch.func.grad(lambda t: SquaredReLU()(t).sum())(x), 2 * x.clamp(min=0))
