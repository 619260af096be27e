import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.classification.datasets import read_splits
from eval.provenance import describe_dataset
from eval.result import SAMPLE_MARKER
from tools.make_sample_data import main
from tools.sample_data import draw
from tools.sample_data.draw import SampleConfig, draw_samples
from tools.sample_data.photographs import COLOUR_PHOTOGRAPHS

ROOTS = ["coco", "ade/ADEChallengeData2016", "DAVIS", "photos", "imagenet"]
SCRIPT = Path(__file__).resolve().parents[3] / "tools/make_sample_data.py"


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_gives_the_same_bytes_in_another_process(samples: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    command = [sys.executable, str(SCRIPT), "--output", str(tmp_path), "--seed", "3"]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, capture_output=True)
    assert _digests(tmp_path) == _digests(samples)


def test_another_seed_gives_other_pictures(samples: Path, tmp_path: Path) -> None:
    draw_samples(SampleConfig(output=tmp_path, seed=4))
    ours, others = _digests(tmp_path), _digests(samples)
    assert set(ours) == set(others)
    same = [name for name in ours if ours[name] == others[name]]
    assert same == ["DAVIS/ImageSets/2017/val.txt"]


def test_every_root_is_marked_so_that_figures_on_it_are_sample_figures(samples: Path) -> None:
    for root in ROOTS:
        marker = json.loads((samples / root / SAMPLE_MARKER).read_text())
        assert marker["seed"] == 3
        assert marker["generator_version"] == draw.GENERATOR_VERSION
        assert describe_dataset(samples / root, "any", "val", ["one"], full_size=1).coverage == "sample"


def test_photos_are_colour_pictures_of_every_subject(samples: Path) -> None:
    pictures = sorted((samples / "photos").rglob("*.jpg"))
    assert {path.parent.name for path in pictures} == set(COLOUR_PHOTOGRAPHS)
    assert len(pictures) == 6 * len(COLOUR_PHOTOGRAPHS)
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.mode == "RGB"
            assert 126 <= min(picture.size) <= 226
            assert np.asarray(picture).std() > 5


def test_the_labelled_set_has_every_subject_in_both_splits_and_no_picture_twice(samples: Path) -> None:
    splits = read_splits(samples / "imagenet", "train", "val", "")
    assert splits.train.classes == splits.test.classes == sorted(COLOUR_PHOTOGRAPHS)
    assert np.bincount(splits.train.labels).tolist() == [8] * len(COLOUR_PHOTOGRAPHS)
    assert np.bincount(splits.test.labels).tolist() == [4] * len(COLOUR_PHOTOGRAPHS)
    digests = [digest for name, digest in _digests(samples).items() if name.startswith(("imagenet", "photos"))]
    assert len(set(digests)) == len(digests), "neither a picture of the other split nor one of the pretraining folder"


def test_what_is_drawn_stays_and_other_options_replace_it(tmp_path: Path) -> None:
    config = {"output": tmp_path, "train_images": 2, "val_images": 1, "frames": 3, "photos": 1, "class_images": 1}
    draw_samples(SampleConfig(**config))
    stamps = {root: (tmp_path / root / SAMPLE_MARKER).stat().st_mtime_ns for root in ROOTS}
    draw_samples(SampleConfig(**{**config, "photos": 2}))
    again = {root: (tmp_path / root / SAMPLE_MARKER).stat().st_mtime_ns for root in ROOTS}
    assert [root for root in ROOTS if stamps[root] != again[root]] == ["photos"]
    assert len(list((tmp_path / "photos").rglob("*.jpg"))) == 16


def test_a_foreign_folder_is_refused_and_nothing_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "DAVIS").mkdir()
    (tmp_path / "DAVIS/mine.txt").write_text("precious")
    with pytest.raises(ValueError, match=r"DAVIS exists and is not sample data.*--output"):
        draw_samples(SampleConfig(output=tmp_path))
    assert [path.name for path in tmp_path.rglob("*")] == ["DAVIS", "mine.txt"]


def test_an_interrupted_drawing_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw_half(root: Path, rng: np.random.Generator, count: int) -> None:
        (root / "half").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(draw, "draw_photos", draw_half)
    with pytest.raises(KeyboardInterrupt):
        draw_samples(SampleConfig(output=tmp_path, train_images=1, val_images=1, frames=3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["DAVIS", "ade", "coco"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "-1"], "--seed -1 is negative"),
        (["--frames", "2"], "--frames 2 is too few; pass 3 or more"),
        (["--photos", "0"], "--photos 0 is too few"),
        (["--class-images", "0"], "--class_images 0 is too few"),
        (["--colour", "red"], "--colour"),
    ],
)
def test_wrong_options_are_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        main(["--output", str(tmp_path), *arguments])
    assert "\n" not in str(caught.value)


def test_an_unwritable_output_is_one_line_and_a_status(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    command = [sys.executable, str(SCRIPT), "--output", str(tmp_path / "file")]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    assert finished.stderr.startswith("error: ")
    assert finished.stderr.count("\n") == 1
