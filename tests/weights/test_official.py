"""Official names, in both directions."""

from __future__ import annotations

import pytest
import torch

from mixlab import create_model
from mixlab.architectures import ARCHITECTURES, official_names
from mixlab.errors import UserError
from mixlab.weights import load_official, to_official

PUBLISHED = [name for name in ARCHITECTURES if official_names(name) is not None]


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_are_a_bijection(name: str) -> None:
    """Every entry has a name of its own, and loading what was given out changes nothing."""
    with torch.device("meta"):
        model = create_model(name)
    official = to_official(model)
    assert len(official) >= len(model.state_dict())
    report = load_official(model, official)
    assert report.complete
    assert set(report.kept) == set(model.state_dict())


def test_every_official_key_must_be_accounted_for() -> None:
    model = create_model("metaformer_s12")
    state = to_official(model)
    state["head.scale"] = state.pop("head.bias")
    with pytest.raises(UserError, match=r"missing \['head.bias'\], left over \['head.scale'\]"):
        load_official(model, state)
    state = to_official(model)
    state["network.0.0.mlp.fc1.weight"] = state["network.0.0.mlp.fc1.weight"].transpose(0, 1)
    with pytest.raises(UserError, match=r"fc1.weight: expected shape \(256, 64, 1, 1\), got \(64, 256, 1, 1\)"):
        load_official(model, state)
    state = to_official(model)
    state["head.bias"] = state["head.bias"][:10]
    with pytest.raises(UserError, match=r"head.bias: expected shape \(1000,\), got \(10,\)"):
        load_official(model, state)
