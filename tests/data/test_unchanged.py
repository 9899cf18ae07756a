"""Fingerprints of sets as older versions made them: runs are named by them, so they must never change."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mixlab.data import DataConfig, open_data
from mixlab.data.card import OF_MASKS
from mixlab.studies.run_config import hashed_data
from tests.data.make import shared

MNI = "2377392efaa00b9fbee071b851d50d9995d81be36487e2916efd91647dd832e7"


@pytest.mark.parametrize(
    ("options", "fingerprint"),
    [
        ({"name": "digits"}, "98a754e382c2a5e157dfefd1791ac41ae0fbc7e7ba5d2f03b851da04f9d19d22"),
        ({"name": "mni152"}, MNI),
        ({"name": "mni152", "image_size": [80, 64]}, MNI),
        ({"name": "mni152-3d"}, "bcbff69bb9b321243ec174aab6592c19d8693680fd9e05b7a31ab1ee3c758281"),
    ],
)
def test_embedded_sets(options: dict[str, Any], fingerprint: str) -> None:
    assert open_data(DataConfig(**options)).fingerprint == fingerprint


def test_shared_sets() -> None:
    data = open_data(DataConfig(name="medmnist:breastmnist", root=shared("medmnist")))
    assert data.fingerprint == "f6c6c9d69cfe590f294c2bec3d9a39d611bfdc8f3ade8920c2ccbc702751b2e2"
    data = open_data(DataConfig(name="folder:caltech101_animals10", root=shared("."), image_size=32))
    assert data.fingerprint == "42fcb921b0cbde73cb72b675cdc3d562a788a880c0d8517de831b5ecad77709e"


def test_options_that_are_not_used_are_not_hashed() -> None:
    assert hashed_data(DataConfig(name="mni152", image_size=64)) == {"name": "mni152", "image_size": 64}
    assert "instances" in hashed_data(DataConfig(name="mni152", instances=True))


def test_cards_of_other_tasks_say_nothing_of_masks() -> None:
    assert not set(OF_MASKS) & set(open_data(DataConfig()).card.to_dict())
    card = open_data(DataConfig(name="mni152")).card
    assert set(OF_MASKS) <= set(card.to_dict())
    assert json.loads(json.dumps(card.to_dict()))["spacing"] == [1.0, 1.0]


def test_mni152_card_says_what_segmentation_needs() -> None:
    data = open_data(DataConfig(name="mni152"))
    assert (data.card.background, data.card.spacing, data.card.overlapping) == (0, (1.0, 1.0), False)
    assert data.card.class_counts["train"] == (1172980, 723340, 458880)
    assert data.card.empty_masks["train"] == 0
    assert data.splits["train"].spacing == [(1.0, 1.0)] * 92
    half = open_data(DataConfig(name="mni152", image_size=80))
    assert half.card.spacing == (2.0, 2.0)
    assert "10 mm between" in data.card.splits
