from __future__ import annotations

from typing import Any

import pytest
import torch

from mixlab.models import ModelConfig
from mixlab.training.averaging import averaged
from mixlab.training.optimiser import freeze_backbone, make_optimizer, parameter_groups
from mixlab.training.recipe import Recipe


@pytest.fixture(scope="module")
def model() -> Any:
    return ModelConfig(token_mixer="sep_conv").build(3, 1, 2)


def rate_of(model: Any, groups: list[dict[str, Any]]) -> dict[str, float]:
    by_id = {id(p): g["lr"] for g in groups for p in g["params"]}
    return {name: by_id[id(p)] for name, p in model.named_parameters()}


def test_every_parameter_is_in_one_group_and_vectors_do_not_decay(model: Any) -> None:
    groups: list[dict[str, Any]] = parameter_groups(model, Recipe())
    listed = [p for g in groups for p in g["params"]]
    assert len(listed) == len({id(p) for p in listed}) == len(list(model.parameters()))
    for group in groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])
        assert group["lr"] == 1e-3


def test_layer_decay_falls_from_head_to_stem_by_one_factor_a_block(model: Any) -> None:
    rates = rate_of(model, parameter_groups(model, Recipe(layer_decay=0.5)))
    blocks = [len(stage.blocks) for stage in model.stages]
    depth = sum(blocks)
    by_layer = {}
    for name, rate in rates.items():
        if name.startswith("head"):
            assert rate == 1e-3
        elif name.startswith("stages.0.embed"):
            assert rate == pytest.approx(1e-3 * 0.5 ** (depth + 1))
        elif ".blocks." in name:
            _, stage, _, block, *_ = name.split(".")
            by_layer[sum(blocks[: int(stage)]) + int(block)] = rate
    assert [by_layer[i] for i in range(depth)] == pytest.approx([1e-3 * 0.5 ** (depth - i) for i in range(depth)])
    downsampling = next(rate for name, rate in rates.items() if name.startswith("stages.1.embed"))
    assert downsampling == by_layer[blocks[0]]


def test_new_parameters_have_a_rate_of_their_own() -> None:
    model = ModelConfig(token_mixer="sep_conv").build(3, 1, 2)
    model.new_parameters = {"head.fc.weight", "stages.3.blocks.0.token_mixer.conv.weight"}
    recipe = Recipe(new_lr_scale=10.0, layer_decay=0.5)
    plain, scaled = (rate_of(model, parameter_groups(model, r)) for r in (Recipe(layer_decay=0.5), recipe))
    assert {name for name in plain if scaled[name] != plain[name]} == model.new_parameters
    assert all(scaled[name] == pytest.approx(10 * plain[name]) for name in model.new_parameters)
    assert rate_of(model, parameter_groups(model, Recipe(layer_decay=0.5))) == plain


def test_a_frozen_backbone_leaves_only_the_head() -> None:
    model = ModelConfig().build(3, 1, 2)
    freeze_backbone(model)
    assert model.head is not None
    trained = [p for g in make_optimizer(model, Recipe()).param_groups for p in g["params"]]
    assert {id(p) for p in trained} == {id(p) for p in model.head.parameters()}


def test_average_starts_at_the_weights_and_follows_them() -> None:
    linear, norm = torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)
    model = torch.nn.Sequential(linear, norm)
    average = averaged(model, decay=0.5)
    average.update_parameters(model)
    first = linear.weight.detach().clone()
    with torch.no_grad():
        linear.weight += 1.0
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(7)
    average.update_parameters(model)
    # The second update's decay is min(0.5, 2 / 11).
    torch.testing.assert_close(average.module[0].weight, first + 9 / 11)  # type: ignore[index]
    assert int(average.module[1].num_batches_tracked) == 7  # type: ignore[index]
    assert not any(p.requires_grad for p in average.parameters())
