"""The JHMDB task from backbone and data to a result that continues, and what wrong data get."""

import dataclasses
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from eval.jhmdb import task
from eval.jhmdb.config import JhmdbConfig
from eval.jhmdb.data import JOINTS, examine, read_joints
from eval.jhmdb.task import evaluate
from eval.result import read_arrays, read_result
from tests.conftest import RunMain
from tests.eval.tracking import FRAMES, Task, Tracking, check_command, check_refusal
from tests.processes import evaluate_in_two
from tools.sample_data.videos import draw_jhmdb

STAND, WAVE = "stand/astronaut_stand_0", "wave/astronaut_wave_0"
MAT = f"joint_positions/{WAVE}/joint_positions.mat"
JHMDB = Task(
    name="jhmdb",
    module=task,
    examine=examine,
    follow="find_joints",
    metrics=tuple(f"PCK@0.{part}" for part in range(1, 6)),
    videos=(STAND, WAVE),
    stretched={"stretched_to": [[320, 320], [322, 322]]},
)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("JHMDB")
    draw_jhmdb(root, np.random.default_rng(0), FRAMES)
    return root


@pytest.fixture
def config(drawn: Path, toy_file: Path, tmp_path: Path) -> JhmdbConfig:
    data = shutil.copytree(drawn, tmp_path / "JHMDB")
    return JhmdbConfig(backbone=toy_file, data=data, output=tmp_path / "out", device="cpu")


class TestJhmdb(Tracking):
    task = JHMDB

    def test_the_command_from_backbone_to_result(self, config: JhmdbConfig, tmp_path: Path, run_main: RunMain) -> None:
        result = check_command(JHMDB, config, tmp_path, run_main)
        values = [metric.value for metric in result.metrics.values()]
        assert values == sorted(values)
        assert values[-1] > 20
        assert list(result.breakdown) == list(JOINTS)
        assert np.mean([of_joint["PCK@0.3"] for of_joint in result.breakdown.values()]) == pytest.approx(values[2])
        assert Image.open(config.output / f"overlays/{WAVE}/00003.png").size == (640, 480)
        other = evaluate(dataclasses.replace(config, protocol="crw", output=tmp_path / "crw"))
        assert (other.protocol.name, other.protocol.settings["joint_cells"]) == ("jhmdb-crw", 3)


def test_two_processes_give_what_one_gives(config: JhmdbConfig, tmp_path: Path) -> None:
    alone, two = evaluate(config), dataclasses.replace(config, output=tmp_path / "two")
    evaluate_in_two("eval.jhmdb.task", two, tmp_path / "processes")
    together = read_result(two.output / "result.json")
    assert (together.metrics, together.environment.world_size) == (alone.metrics, 2)
    for name in (STAND, WAVE):
        found, wanted = (read_arrays(output / f"joints/{name}.npz")["places"] for output in (two.output, config.output))
        assert np.array_equal(found, wanted)


def change_joints(change: Callable[[np.ndarray], object]) -> Callable[[Path], object]:
    def changed(root: Path) -> None:
        places = loadmat(root / MAT)["pos_img"]
        savemat(root / MAT, {"pos_img": change(places)})

    return changed


def at(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def moved(places: np.ndarray) -> np.ndarray:
        places[0, 2, 1] = value
        return places

    return moved


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda root: (root / "splits/wave_test_split1.txt").write_text("gone.avi 2\n"),
            r"no frames .* in Rename_Images: wave/gone; .* off the lists in splits",
        ),
        (lambda root: (root / "splits/wave_test_split1.txt").write_text("a.avi\n"), r"'a.avi' is not `VIDEO.avi 1`"),
        (lambda root: shutil.rmtree(root / "splits"), r"splits has no CLASS_test_split1.txt"),
        (
            lambda root: (root / MAT).write_bytes(b"MATLAB 5.0 MAT-file"),
            r"joint_positions.mat: not readable as joint positions",
        ),
        (lambda root: (root / MAT).unlink(), r"joint_positions.mat: no such file"),
        (change_joints(lambda places: places[:, :14]), r"pos_img is double \[2, 14, 3\], not numbers \[2, 15, frames\]"),
        (change_joints(lambda places: places.astype(object)), r"pos_img is cell"),
        (change_joints(at(np.nan)), r"places of joints that are not finite"),
        (change_joints(at(5000.0)), r"farther outside their frame than it is large: wave/\S+ \(face of frame 2 at 5000.0, "),
        (change_joints(lambda places: places - 500), r"no joint in the first frame|farther outside"),
        (change_joints(lambda places: np.repeat(places, 2, axis=2)), r"fewer frames than joint positions.*\(6 of joints, 3 of"),
        (
            lambda root: (root / f"Rename_Images/{WAVE}/00002.png").unlink(),
            r"fewer frames than joint .*\(3 of joints, 2 of images",
        ),
    ],
)
def test_wrong_data_are_refused(config: JhmdbConfig, change: Callable[[Path], object], message: str) -> None:
    change(config.data)
    check_refusal(JHMDB, config, message)


def test_joints_a_little_outside_the_frame_are_mentioned_and_scored(
    config: JhmdbConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """Many of JHMDB's are: only a part of the person is seen."""
    change_joints(at(-20.0))(config.data)
    with caplog.at_level(logging.WARNING):
        evaluate(config)
    assert any(
        f"videos have joints outside the frame, which are scored where labels are found: {WAVE} (1 of 45)" in line
        for line in caplog.messages
    )
    assert read_joints(config.data / MAT)[0, 2, 1] == -21


def test_a_list_may_be_that_of_cropmae(config: JhmdbConfig, tmp_path: Path) -> None:
    path = tmp_path / "jhmdb_vallist.txt"
    path.write_text(f"datasets/jhmdb/{MAT} datasets/jhmdb/Rename_Images/{WAVE}/\n")
    result = evaluate(dataclasses.replace(config, video_list=path))
    assert (result.datasets["test"].num_items, result.datasets["test"].split) == (1, "jhmdb_vallist")
    assert [str(finding) for finding in examine(config.data)] == ["test: 2 of 268 videos"]
