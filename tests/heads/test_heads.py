"""What every head of the registry promises; a new head is tested by existing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mixlab.errors import UserError
from mixlab.heads import HEADS, Head
from mixlab.heads.projected import ProjectedHead

DIM, CLASSES = 6, 5
SIZES = {1: (7,), 2: (5, 3), 3: (2, 3, 4)}
SMALL: dict[str, dict[str, Any]] = {"projected": {"features": 11}}
PARTS: list[tuple[str, dict[str, Any]]] = [
    *((name, SMALL.get(name, {})) for name in HEADS),
    ("projected", {"features": 11, "token_labels": True}),
]


def make(name: str, num_classes: int, spatial_dims: int = 2, **options: Any) -> Head:
    return HEADS.build({"name": name, **options}, DIM, num_classes, spatial_dims=spatial_dims)


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
@pytest.mark.parametrize(("name", "options"), PARTS)
def test_shape_gradients_and_cost(name: str, options: dict[str, Any], spatial_dims: int) -> None:
    size = SIZES[spatial_dims]
    head = make(name, CLASSES, spatial_dims, **options)
    x = torch.randn(3, DIM, *size, requires_grad=True)
    logits = head(x)
    assert logits.shape == (3, CLASSES)
    logits.square().sum().backward()
    for key, parameter in [("input", x), *head.named_parameters()]:
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key
    cost = head.cost(size)
    assert cost.parameters == sum(p.numel() for p in head.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        head.eval()(x[:1].detach())
    assert counter.get_total_flops() == 2 * cost.macs_computed


@pytest.mark.parametrize(("name", "options"), PARTS)
def test_without_classes_and_reset(name: str, options: dict[str, Any]) -> None:
    head, x = make(name, 0, **options).eval(), torch.randn(3, DIM, 5, 3)
    features = head(x)
    assert features.shape == (3, options.get("features", DIM))
    assert head.cost((5, 3)).parameters == sum(p.numel() for p in head.parameters())
    head.reset(CLASSES)
    assert head.eval()(x).shape == (3, CLASSES)
    assert head.cost((5, 3)).parameters == sum(p.numel() for p in head.parameters())
    head.reset(0)
    torch.testing.assert_close(head.eval()(x), features)


@pytest.mark.parametrize(("name", "options"), [p for p in PARTS if "pool" in HEADS.options(p[0])])
def test_pools(name: str, options: dict[str, Any]) -> None:
    x = torch.randn(3, DIM, 5, 3)
    mapped = make(name, 0, **options, pool="none").eval()
    assert mapped(x).shape[2:] == (5, 3)
    for pool in ("avg", "max"):
        head = make(name, CLASSES, **options, pool=pool).eval()
        assert head(x).shape == (3, CLASSES)
        features = head.pre_logits(x)
        head.reset(0)
        torch.testing.assert_close(head(x), features)
    with pytest.raises(UserError, match="num_classes=0 for the map"):
        make(name, CLASSES, **options, pool="none")
    with pytest.raises(UserError, match="'avg', 'max' or 'none'"):
        make(name, CLASSES, **options, pool="mean")


@pytest.mark.parametrize("name", list(HEADS))
def test_dropout(name: str) -> None:
    head = make(name, CLASSES, **SMALL.get(name, {}), dropout=0.5)
    assert 0.5 in [m.p for m in head.modules() if isinstance(m, torch.nn.Dropout)]


def test_projected_is_the_formula() -> None:
    head, x = ProjectedHead(DIM, CLASSES, features=11).eval(), torch.randn(3, DIM, 5, 3)
    torch.nn.init.uniform_(head.norm.running_mean)
    wide = torch.einsum("oc,bchw->bohw", head.proj.weight, x) + head.proj.bias.view(-1, 1, 1)
    pooled = torch.nn.functional.silu(head.norm(wide)).mean((2, 3))
    torch.testing.assert_close(head(x), head.fc(pooled))


def test_token_labels_add_half_of_the_greatest() -> None:
    head = ProjectedHead(DIM, CLASSES, features=11, token_labels=True).eval()
    x = torch.randn(3, DIM, 5, 3)
    on_positions = head.token_logits(x)
    assert on_positions.shape == (3, CLASSES, 5, 3)
    without = ProjectedHead(DIM, CLASSES, features=11).eval()
    without.load_state_dict({k: v for k, v in head.state_dict().items() if not k.startswith("aux")})
    torch.testing.assert_close(head(x), without(x) + 0.5 * on_positions.flatten(2).max(2).values)
    with pytest.raises(UserError, match="try token_labels=True"):
        without.token_logits(x)
    head.reset(0)
    with pytest.raises(UserError, match="num_classes=0"):
        head.token_logits(x)


def test_bad_features() -> None:
    with pytest.raises(UserError, match="head features"):
        ProjectedHead(DIM, CLASSES, features=0)
