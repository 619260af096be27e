from pathlib import Path

import pytest

from tools.sample_data.draw import SampleConfig, draw_samples


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample data of seed 3."""
    folder = tmp_path_factory.mktemp("samples")
    draw_samples(SampleConfig(output=folder, seed=3))
    return folder
