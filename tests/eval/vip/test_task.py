"""The VIP task from backbone and data to a result that continues, and what wrong data get."""

import dataclasses
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones.spec import ViTSpec
from eval.__main__ import main
from eval.probes.items import read_items
from eval.propagation import writing
from eval.propagation.masks import Mask, read_mask
from eval.result import read_arrays, read_result
from eval.vip import data, masks, protocol, task
from eval.vip.config import VipConfig
from eval.vip.data import examine
from eval.vip.task import evaluate
from tables.make import build_tables, render_tables
from tests.conftest import RunMain
from tests.toy import write_toy_backbone
from tools.sample_data.videos import VIP_SIZE, draw_vip

FRAMES = 3
MASK = "Annotations/Category_ids/videos2/000000000001.png"


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


def test_the_command_from_backbone_to_result(config: VipConfig, tmp_path: Path, run_main: RunMain) -> None:
    output = config.output
    places = ["--backbone", config.backbone, "--data", config.data, "--output", output, "--device", "cpu", "--overlays", "true"]
    assert "mIoU" in run_main(main, ["vip", *places, "--jobs", 1]).output()
    result = read_result(output / "result.json")
    assert (result.protocol.name, result.protocol.deviations, result.coverage) == ("vip-cropmae", {}, "subset")
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
    items = read_items(result, output)
    assert items is not None
    assert items[0] == ("videos1", "videos2")
    assert items[2] is not None
    assert items[2](np.ones((1, 2)))["mIoU"][0] == pytest.approx(result.metrics["mIoU"].value)
    assert f"{result.metrics['mIoU'].value:.1f}" in render_tables(build_tables(tmp_path))["tables.md"]
    assert evaluate(dataclasses.replace(config, overlays=True)) == result


def test_an_interrupted_run_continues_to_the_same_result(
    config: VipConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate(dataclasses.replace(config, output=tmp_path / "whole"))
    original = task.write_video
    written: list[str] = []

    def write_or_die(video: task.VideoSequence, *given: object) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(video.name)
        original(video, *given)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(task, "write_video", write_or_die)
        with pytest.raises(KeyboardInterrupt):
            evaluate(config)
    stamp = (config.output / "masks" / written[0]).stat().st_mtime_ns
    assert evaluate(config).metrics == whole.metrics
    assert (config.output / "masks" / written[0]).stat().st_mtime_ns == stamp


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


def test_patches_of_14_pixels_need_sizes_that_are_rounded_up(config: VipConfig, tmp_path: Path) -> None:
    spec = ViTSpec(embed_dim=24, depth=2, num_heads=3, patch_size=14, image_size=56, class_token=True, final_norm=True)
    config = dataclasses.replace(config, backbone=write_toy_backbone(tmp_path, spec))
    with pytest.raises(ValueError, match=r"; --round-up true takes the next sizes that fit$"):
        evaluate(config)
    result = evaluate(dataclasses.replace(config, round_up=True, block=0))
    assert result.protocol.deviations == {"block": [None, 0], "round_up": [False, True]}
    assert read_mask(config.output / "masks/videos1/000000000001_mask.png").shape == (70, 140)


def test_overlays_can_be_had_later(
    config: VipConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The time of the result was that of the overlays alone."""
    monkeypatch.setattr(writing, "_TELL_AFTER_S", 0)
    caplog.set_level("INFO")
    result = evaluate(config)
    assert f"videos1: 2 of {FRAMES} frames" in caplog.messages
    later = evaluate(dataclasses.replace(config, overlays=True))
    assert later == dataclasses.replace(result, artefacts={**result.artefacts, "overlays": "overlays"})
    assert len(list((config.output / "overlays/videos1").iterdir())) == FRAMES


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
def test_wrong_data_are_refused_before_anything_runs(config: VipConfig, change: Callable[[Path], object], message: str) -> None:
    change(config.data)
    with pytest.raises(ValueError, match=message) as caught:
        evaluate(config)
    assert "\n" not in str(caught.value)
    assert not config.output.exists()
    assert any(finding.is_problem for finding in examine(config.data))


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
