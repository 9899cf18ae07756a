from __future__ import annotations

from pathlib import Path

import pytest

from tests.studies.small import make_images


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images, for all tests to read."""
    return make_images(tmp_path_factory.mktemp("images"))
