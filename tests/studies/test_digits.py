"""A smoke test of learning, not a ranking."""

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


def accuracy(mixer: str, epochs: int, folder: Path) -> float:
    """Test accuracy of the small model, trained on all of digits."""
    data = digits()
    model = create_model("metaformer_nano", token_mixer=mixer, num_classes=10, in_channels=1, image_size=28)
    recipe = Recipe(epochs=epochs, batch_size=64, learning_rate=2e-3, warmup_epochs=3, schedule_per="step")
    fit(model, data.card, data.splits, recipe, seed=0, folder=folder)
    load_best(folder, model)
    found: dict[str, Any] = predict(model, data.card, data.splits["test"], batch_size=256)
    right = torch.as_tensor(found["probabilities"]).argmax(1) == torch.as_tensor(found["targets"])
    return right.double().mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("mixer", list(MIXERS))
def test_every_mixer_learns_digits(mixer: str, tmp_path: Path) -> None:
    """In few epochs; chance is 0.1, and random mixing, the slowest, is at 0.8 by then."""
    assert accuracy(mixer, 12, tmp_path) >= 0.7


@pytest.mark.slow
@pytest.mark.parametrize("mixer", ["pooling", "local_attention"])
def test_trained_to_the_end(mixer: str, tmp_path: Path) -> None:
    assert accuracy(mixer, 40, tmp_path) >= 0.97
