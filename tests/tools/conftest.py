from pathlib import Path

import pytest

from tools.make_sample_data import SampleConfig, draw_samples


@pytest.fixture(scope="session")
def ablation_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sample data as the ablations' `--data` has it: the photographs stand for COCO train2017."""
    folder = tmp_path_factory.mktemp("ablation")
    draw_samples(SampleConfig(output=folder, train_images=1, val_images=1, frames=3, photos=2, class_images=1))
    (folder / "coco" / "train2017").rename(folder / "coco" / "one")
    (folder / "coco" / "train2017").symlink_to(folder / "photos")
    return folder
