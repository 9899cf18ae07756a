"""A smoke test of learning, not a ranking: on all of digits every mixer reaches 97 %."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from mixlab import create_model
from mixlab.data import DataConfig, ImageData, open_data
from mixlab.mixers import MIXERS
from mixlab.training.checkpoint import load_best
from mixlab.training.fit import fit, predict
from mixlab.training.recipe import Recipe


@cache
def digits() -> ImageData:
    return open_data(DataConfig(name="digits", image_size=28))


@pytest.mark.slow
@pytest.mark.parametrize("mixer", list(MIXERS))
def test_every_mixer_learns_digits(mixer: str, tmp_path: Path) -> None:
    data = digits()
    model = create_model("metaformer_nano", token_mixer=mixer, num_classes=10, in_channels=1)
    recipe = Recipe(epochs=40, batch_size=64, learning_rate=2e-3, warmup_epochs=3, schedule_per="step")
    fit(model, data.card, data.splits, recipe, seed=0, folder=tmp_path)
    load_best(tmp_path, model)
    found: dict[str, Any] = predict(model, data.card, data.splits["test"], batch_size=256)
    right = torch.as_tensor(found["probabilities"]).argmax(1) == torch.as_tensor(found["targets"])
    assert right.double().mean().item() >= 0.97
