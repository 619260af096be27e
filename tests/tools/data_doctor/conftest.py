import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eval.davis.masks import write_mask
from tools.data_doctor.config import DoctorConfig
from tools.data_doctor.doctor import examine
from tools.data_doctor.report import DatasetReport, Finding
from tools.sample_data.formats import coco_categories

HEIGHT, WIDTH = 48, 64
SPLITS = {"train2017": (1, 2, 3), "val2017": (4, 5)}
SEQUENCES = ("blackswan", "dog")
FRAMES = 4
CLASSES = ("n01440764", "n01443537")


def draw_photo(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "JPEG", quality=95)


def coco_content(numbers: tuple[int, ...]) -> dict[str, Any]:
    """An image per number, with a polygon, and a crowd of run lengths in the first."""
    images = [{"id": n, "file_name": f"{n:012d}.jpg", "width": WIDTH, "height": HEIGHT} for n in numbers]
    polygon = [10.0, 5.0, 30.0, 5.0, 30.0, 20.5, 10.0, 20.5]
    common = {"iscrowd": 0, "area": 310.0, "bbox": [10.0, 5.0, 20.0, 15.5]}
    annotations = [
        {**common, "id": 100 + n, "image_id": n, "category_id": 18, "segmentation": [list(polygon)]} for n in numbers
    ]
    crowd = {"size": [HEIGHT, WIDTH], "counts": [100, 200, HEIGHT * WIDTH - 300]}
    annotations.append(
        {**common, "id": 200, "image_id": numbers[0], "category_id": 90, "iscrowd": 1, "segmentation": crowd}  # type: ignore[dict-item]
    )
    return {"images": images, "annotations": annotations, "categories": coco_categories()}


def _draw_coco(root: Path) -> None:
    (root / "annotations").mkdir(parents=True)
    for split, numbers in SPLITS.items():
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(coco_content(numbers)))
        for number in numbers:
            draw_photo(root / split / f"{number:012d}.jpg", number)


def _draw_ade(root: Path) -> None:
    for split, short, count in (("training", "train", 3), ("validation", "val", 2)):
        for number in range(1, count + 1):
            stem = f"ADE_{short}_{number:08d}"
            draw_photo(root / "images" / split / f"{stem}.jpg", number)
            labels = np.random.default_rng(number).integers(0, 151, (HEIGHT, WIDTH), dtype=np.uint8)
            (root / "annotations" / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(labels).save(root / "annotations" / split / f"{stem}.png")


def _draw_davis(root: Path) -> None:
    for seed, name in enumerate(SEQUENCES):
        for frame in range(FRAMES):
            draw_photo(root / "JPEGImages/480p" / name / f"{frame:05d}.jpg", 10 * seed + frame)
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            mask[5:20, 5 + frame : 20 + frame], mask[25:40, 30:50] = 1, 2
            (root / "Annotations/480p" / name).mkdir(parents=True, exist_ok=True)
            write_mask(root / "Annotations/480p" / name / f"{frame:05d}.png", mask)
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("\n".join(SEQUENCES) + "\n")


def _draw_imagenet(root: Path) -> None:
    for split, count in (("train", 3), ("val", 2)):
        for seed, name in enumerate(CLASSES):
            for number in range(count):
                draw_photo(root / split / name / f"{name}_{number}.JPEG", 10 * seed + number)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    _draw_coco(folder / "coco")
    _draw_ade(folder / "ade/ADEChallengeData2016")
    _draw_davis(folder / "DAVIS")
    _draw_imagenet(folder / "imagenet")
    return folder


@pytest.fixture
def data(drawn: Path, tmp_path: Path) -> Path:
    """Four tiny healthy datasets, to be damaged."""
    return shutil.copytree(drawn, tmp_path / "data")


Examine = Callable[..., DatasetReport]


@pytest.fixture
def examine_task(data: Path) -> Examine:
    """The report about one task's dataset."""

    def examine_one(task: str, deep: bool = False) -> DatasetReport:
        report = examine(DoctorConfig(data=data, tasks=task, deep=deep, jobs=1))
        return next(dataset for dataset in report.datasets if dataset.task == task)

    return examine_one


def only(report: DatasetReport, kind: str) -> Finding:
    """The single finding of a kind; the test fails on any other problem, so that nothing is reported twice."""
    of_kind = [finding for finding in report.findings if finding.kind == kind]
    assert len(of_kind) == 1, report.findings
    assert [finding for finding in report.problems if finding.kind != kind] == []
    return of_kind[0]
