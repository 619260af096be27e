"""Where the golden and the real data lie; shared fixtures."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def _data_folder(variable: str, default: str) -> Path:
    folder = Path(os.environ.get(variable, REPOSITORY / default))
    if not folder.is_dir():
        pytest.skip(f"no {variable}: {folder} does not exist")
    return folder


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Recorded outputs of the reference implementations."""
    return _data_folder("GOLDEN_DIR", "../shared/golden")


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    """Small subsets of the public datasets."""
    return _data_folder("REAL_DATA_DIR", "../shared/data")
