"""The VIP task from backbone and data to a result that continues, and what wrong data get."""

import dataclasses
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eval.propagation.masks import Mask, read_mask
from eval.result import read_arrays
from eval.vip import data, masks, protocol, task
from eval.vip.config import VipConfig
from eval.vip.data import examine
from eval.vip.task import evaluate
from tests.conftest import RunMain
from tests.eval.tracking import FRAMES, Task, Tracking, check_command, check_refusal
from tools.sample_data.videos import VIP_SIZE, draw_vip

MASK = "Annotations/Category_ids/videos2/000000000001.png"
VIP = Task(
    name="vip",
    module=task,
    examine=examine,
    follow="write_video",
    metrics=("mIoU", "mAcc"),
    videos=("videos1", "videos2"),
    stretched={"round_up": [False, True]},
)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("VIP_Fine")
    draw_vip(root, np.random.default_rng(0), FRAMES)
    return root


@pytest.fixture
def vip(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """VIP's folder; the network sees small frames."""
    small = dataclasses.replace(protocol.PUBLISHED["cropmae"], long_side=128, short_side_multiple=32)
    monkeypatch.setitem(protocol.PUBLISHED, "cropmae", small)
    return shutil.copytree(drawn, tmp_path / "VIP_Fine")


@pytest.fixture
def config(vip: Path, toy_file: Path, tmp_path: Path) -> VipConfig:
    return VipConfig(backbone=toy_file, data=vip, output=tmp_path / "out", device="cpu", jobs=1)


class TestVip(Tracking):
    task = VIP

    def test_the_command_from_backbone_to_result(self, config: VipConfig, tmp_path: Path, run_main: RunMain) -> None:
        result, output = check_command(VIP, config, tmp_path, run_main, "--jobs", 1), config.output
        assert list(result.breakdown) == list(protocol.CLASSES)
        assert result.metrics["mIoU"].value > 30  # fresh weights follow colours
        # The first frame counts, too, and its mask is what its labels on the grid give.
        width, height = VIP_SIZE
        counts = read_arrays(output / result.artefacts["image_pixels"])["counts"]
        assert counts[:, 2].sum() == 2 * FRAMES * width * height
        first = read_mask(output / "masks/videos1/000000000000_mask.png")
        assert first.shape == (64, 128)
        assert set(np.unique(first)) == {0, 4, 12, 13}  # hair is too thin for these patches
        assert Image.open(output / "overlays/videos2/000000000002.png").size == VIP_SIZE

    def test_patches_of_14_pixels_need_sizes_that_are_rounded_up(self, config: Any, tmp_path: Path) -> None:
        super().test_patches_of_14_pixels_need_sizes_that_are_rounded_up(config, tmp_path)
        assert read_mask(config.output / "masks/videos1/000000000001_mask.png").shape == (70, 140)


def test_masks_are_written_while_the_device_goes_on(config: VipConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waited for each mask before the next frame."""
    writers: list[threading.Thread] = []

    def write_mask(path: Path, mask: Mask) -> None:
        writers.append(threading.current_thread())
        original(path, mask)

    original = masks.write_mask
    monkeypatch.setattr(masks, "write_mask", write_mask)
    evaluate(config)
    assert len(writers) == 2 * FRAMES
    assert threading.main_thread() not in writers


def class_20(root: Path) -> None:
    mask = read_mask(root / MASK).copy()
    mask[0, :2] = 20, 255
    Image.fromarray(mask).save(root / MASK)


def name_a_missing_video(root: Path) -> None:
    (root / "lists/val_videos.txt").write_text("videos1\nvideos7\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            name_a_missing_video,
            r"sequences have no frames \(\*.jpg\) in Images: videos7; get it .*, or take them off lists/val_videos.txt",
        ),
        (class_20, r"masks have other numbers than classes: .*videos2/000000000001.png \(20\); VIP has the classes 0 to 19"),
        (lambda root: (root / MASK).unlink(), r"frames have no mask: videos2/000000000001.jpg"),
        (lambda root: (root / MASK).write_bytes(b"no image"), r"not images by their first bytes: .*videos2/000000000001.png"),
        (lambda root: (root / "lists/val_videos.txt").write_text(""), r"val_videos.txt names no video"),
        (lambda root: (root / "lists/val_videos.txt").write_text("..\n"), r"val_videos.txt: video"),
        (lambda root: (root / "lists/val_videos.txt").unlink(), r"val_videos.txt: no such file"),
    ],
)
def test_wrong_data_are_refused(config: VipConfig, change: Callable[[Path], object], message: str) -> None:
    change(config.data)
    check_refusal(VIP, config, message)


def test_a_list_may_be_that_of_cropmae(config: VipConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "vip_vallist.txt"
    path.write_text("datasets/VIP/Images/videos2 datasets/VIP/Annotations/Category_ids/videos2\n")
    result = evaluate(dataclasses.replace(config, video_list=path))
    assert result.datasets["test"].num_items == 1
    monkeypatch.setattr(data, "VAL_VIDEOS", 1)
    (config.data / "lists/val_videos.txt").write_text("videos1\n")
    videos = data.find_videos(config.data, path)
    assert data.describe(config.data, videos, path).coverage == "subset"  # as many others are not the whole
    (config.data / "lists/val_videos.txt").write_text("videos2\n")
    assert data.describe(config.data, videos, path).coverage == "full"
    monkeypatch.undo()
    (config.data / "lists/val_videos.txt").write_text("videos1\nvideos2\n")
    assert [str(finding) for finding in examine(config.data)] == ["val: 2 of 50 videos"]
