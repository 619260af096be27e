from pathlib import Path

import pytest

from eval.openmmlab.options import FineTuningConfig


def options(**changes: object) -> FineTuningConfig:
    return FineTuningConfig(backbone=Path("b"), data=Path("d"), output=Path("o"), **changes)  # type: ignore[arg-type]


def test_image_limits() -> None:
    assert options().image_limits == (None, None)
    assert options(max_images=3).image_limits == (3, 3)
    assert options(max_images=3, max_val_images=5).image_limits == (3, 5)
    with pytest.raises(ValueError, match="max_images=0 must be at least 1"):
        options(max_images=0)
