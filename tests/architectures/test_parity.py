"""Whole models against the official implementations, in float32 and float64, for every file of vectors."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mixlab import create_model
from mixlab.metaformer import MetaFormer
from mixlab.weights import to_official
from mixlab.weights.fill import key_digest
from tests.parity.check import DTYPES, HERE, compare_model, filled, read

FILES = sorted(p.stem for p in HERE.glob("*.json") if not p.stem.startswith("units_"))


def of_case(name: str, case: dict[str, Any]) -> MetaFormer:
    """The model in the form that a case was computed with."""
    model = filled(create_model(name))
    return model.fuse() if "fused" in case.get("form", "") else model


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FILES)
def test_equals_the_official_numbers(name: str, dtype: torch.dtype) -> None:
    for case in read(name)["cases"]:
        compare_model(of_case(name, case), case, dtype)


@pytest.mark.parametrize("name", FILES)
def test_official_names_and_shapes(name: str) -> None:
    reference = read(name)
    for case in [{}, *(c for c in reference["cases"] if "form" in c)]:
        said = case or reference
        model = of_case(name, case)
        state = to_official(model)
        assert len(state) == said["n_state_keys"]
        assert key_digest(state) == said["keys_sha256"]
        assert sum(p.numel() for p in model.parameters()) == said["params"]
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == said["params_trainable"]
