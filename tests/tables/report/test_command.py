import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import pytest

from common.command import parse_config
from eval.classification.config import ClassificationConfig
from eval.davis.config import DavisConfig
from eval.detection.config import DetectionConfig
from eval.result import Result, read_result, write_result
from eval.segmentation.config import SegmentationConfig
from tables.report.command import reproduction_command
from tests.tables.conftest import make_result

PLACES: dict[str, Any] = {
    "backbone": Path("runs/a b/backbone.safetensors"),
    "data": Path("data/$HOME"),
    "output": Path("runs/x"),
}
CONFIGS: list[tuple[str, Any]] = [
    ("davis", DavisConfig(**PLACES)),
    (
        "davis",
        DavisConfig(**PLACES, name="it's <b>; rm -rf 'x'", year="2016", sequences="dog,cat", overlays=True, topk=7, block=3),
    ),
    ("detection", DetectionConfig(**PLACES)),
    (
        "detection",
        DetectionConfig(
            **PLACES, epochs=0.5, taps=[0, 1, 2, 3], scale_lr=True, override=['a.b="c d"', "e.f=[1,2]"], draw_images=0
        ),
    ),
    ("segmentation", SegmentationConfig(**PLACES, head="upernet", decay_norm=False, name="--name")),
    ("classification", ClassificationConfig(**PLACES)),
    (
        "classification",
        ClassificationConfig(
            **PLACES,
            classifiers=["knn"],
            neighbours=[1, 20],
            learning_rates=[0.1, 1e-4],
            cache=Path("-c"),
            linear_mean_patch=True,
        ),
    ),
]


def _as_stored(tmp_path: Path, task: str, config: dict[str, Any], world_size: int = 1) -> Result:
    """A result after writing and reading, which turns paths into texts."""
    result = make_result("one", task)
    environment = dataclasses.replace(result.environment, world_size=world_size)
    return read_result(write_result(tmp_path, dataclasses.replace(result, config=config, environment=environment)))


def _words(command: str) -> list[str]:
    """What a shell makes of a command."""
    shell = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, text=True, check=True)
    return shell.stdout.split("\0")[:-1]


@pytest.mark.parametrize(("task", "config"), CONFIGS)
def test_the_task_reads_its_own_options_from_the_command(tmp_path: Path, task: str, config: Any) -> None:
    stored = dataclasses.asdict(config)
    if task in ("detection", "segmentation"):
        stored["batch"] = {"total": 8, "per_device": 8}  # what these tasks add
    words = _words(reproduction_command(_as_stored(tmp_path, task, stored)))
    assert words[:4] == ["python", "-m", "eval", task]
    assert parse_config(type(config), "command", words[4:]) == config


def test_several_processes_are_started_again(tmp_path: Path) -> None:
    result = _as_stored(tmp_path, "davis", {"seed": 3}, world_size=8)
    assert reproduction_command(result) == "python -m eval davis \\\n    --seed 3 \\\n    --gpus 8"
