from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test draws the same numbers, alone or in the suite."""
    torch.manual_seed(0)


def pytest_configure() -> None:
    torch.set_num_threads(1)  # tests share the cores with each other
