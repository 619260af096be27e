"""Sample data that the tests of the tools share."""

from pathlib import Path
from typing import Any

import pytest

from tools.make_sample_data import SampleConfig, draw_samples


@pytest.fixture(scope="session")
def small_sizes() -> dict[str, Any]:
    return {"train_images": 4, "val_images": 2, "frames": 4, "photos": 2, "class_images": 2}


@pytest.fixture(scope="session")
def small_samples(small_sizes: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every set with a few images; a test that changes it takes a copy."""
    folder = tmp_path_factory.mktemp("small_samples")
    draw_samples(SampleConfig(output=folder, **small_sizes))
    return folder
