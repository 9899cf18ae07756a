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
def digits(size: int) -> ImageData:
    return open_data(DataConfig(name="digits", image_size=size))


def accuracy(mixer: str, epochs: int, folder: Path, size: int = 14) -> float:
    """Test accuracy of the small model, trained on all of digits (8 px by origin) in stages of 7, 4, 2 and 1."""
    data = digits(size)
    model = create_model("metaformer_nano", token_mixer=mixer, num_classes=10, in_channels=1, image_size=size)
    recipe = Recipe(epochs=epochs, batch_size=64, learning_rate=2e-3, warmup_epochs=3, schedule_per="step")
    fit(model, data.card, data.splits, recipe, seed=0, folder=folder)
    load_best(folder, model)
    found: dict[str, Any] = predict(model, data.card, data.splits["test"], batch_size=256)
    right = torch.as_tensor(found["probabilities"]).argmax(1) == torch.as_tensor(found["targets"])
    return right.double().mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("mixer", list(MIXERS))
def test_every_mixer_learns_digits(mixer: str, tmp_path: Path) -> None:
    """In few epochs; chance is 0.1, and random mixing, the slowest, is at 0.87 by then."""
    assert accuracy(mixer, 8, tmp_path) >= 0.8


@pytest.mark.slow
def test_local_attention_learns_on_a_grid_larger_than_its_window(tmp_path: Path) -> None:
    """In stages of 14, 7, 4 and 2, by the native kernel where there is one."""
    assert accuracy("local_attention", 8, tmp_path, size=28) >= 0.8


@pytest.mark.slow
@pytest.mark.parametrize("mixer", ["pooling", "local_attention"])
def test_trained_to_the_end(mixer: str, tmp_path: Path) -> None:
    assert accuracy(mixer, 24, tmp_path) >= 0.97
