"""Batches do not depend on workers, processes or restarts; unreadable images are named; networks get normalised floats."""

import logging
import os
import shutil
import warnings
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from common.images import IMAGENET_MEAN, IMAGENET_STD
from pretrain.config import DataConfig, TrainConfig, ViewsConfig
from pretrain.data.loader import (
    Batch,
    GlobalBatchSampler,
    ImageKey,
    MultiCropImages,
    build_loader,
    network_inputs,
    report_unreadable,
    set_up_worker,
    worker_cores,
)
from pretrain.data.sources import ImageFiles, images_of_folder

CPU = torch.device("cpu")
VIEWS = ViewsConfig(global_size=32, local_size=16, local_crops=1)
TRAIN = TrainConfig(batch_size=4, seed=3)


def batches(source: ImageFiles, workers: int = 0, views: ViewsConfig = VIEWS) -> list[Batch]:
    sampler = GlobalBatchSampler(len(source.names), TRAIN, rank=0, world_size=1)
    sampler.plan(0, 6)
    dataset = MultiCropImages(source, views, seed=3)
    return list(build_loader(dataset, sampler, DataConfig(workers=workers), pin_memory=False))


def keys(images: int, world_size: int, shared_by: int = 0, steps: tuple[int, int] = (0, 6)) -> list[ImageKey]:
    """The keys that all processes together draw."""
    found = []
    for rank in range(world_size):
        sampler = GlobalBatchSampler(images, TRAIN, rank, world_size, shared_by)
        sampler.plan(*steps)
        found += [key for batch in sampler for key in batch]
    return found


def equal(a: Batch, b: Batch) -> bool:
    if len(a.colours) != len(b.colours):
        return False
    same_draws = all(all(map(np.array_equal, *pair)) for pair in zip(a.colours, b.colours, strict=True))
    return same_draws and all(map(torch.equal, a.crops, b.crops)) and all(map(torch.equal, a.boxes, b.boxes))


@pytest.mark.parametrize("option", [{"photometric_patch": 8}, {"on_device": True}])
def test_workers_do_not_change_batches(image_folder: Path, option: dict[str, Any]) -> None:
    source, views = images_of_folder(image_folder), ViewsConfig(global_size=32, local_size=16, local_crops=1, **option)
    alone = batches(source, views=views)
    assert [crops.shape[1:] for crops in alone[0].crops] == [(3, 32, 32), (3, 32, 32), (3, 16, 16)]
    assert [len(batch.colours) for batch in alone] == [3 if views.on_device else 0] * 6
    assert not equal(alone[0], batches(source, views=VIEWS)[0])
    for workers in (1, 3):
        made = batches(source, workers, views=views)
        assert len(made) == len(alone)
        assert all(map(equal, alone, made))


def test_every_epoch_sees_every_image_once_also_after_a_restart() -> None:
    whole = keys(12, 1)
    assert [sorted(key.image for key in whole if key.epoch == epoch) for epoch in range(2)] == [list(range(12))] * 2
    assert keys(12, 1, steps=(4, 6)) == whole[16:]
    assert keys(12, 2, steps=(1, 2)) == [*whole[4:8:2], *whole[5:8:2]], "each process has every other image"


def test_groups_share_boxes_and_flips(image_folder: Path) -> None:
    groups = [{key.image: key.group for key in keys(12, world_size, shared_by=2, steps=(0, 3))} for world_size in (1, 2)]
    assert groups[0] == groups[1]
    assert sorted(groups[0].values()) == [group for group in range(6) for _ in range(2)]
    dataset = MultiCropImages(images_of_folder(image_folder), VIEWS, seed=3)
    first, second, other = (dataset[ImageKey(0, index, group)][1] for index, group in ((0, 4), (1, 4), (0, 5)))
    assert np.array_equal(first.boxes_V5, second.boxes_V5)
    assert not np.array_equal(first.boxes_V5, other.boxes_V5)
    assert all(map(np.array_equal, first.colours, second.colours))
    assert not all(map(np.array_equal, first.colours, other.colours))


def test_unreadable_images_are_replaced_and_named(image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = sorted(image_folder.rglob("*.jpg"))[:2]
    cut, text = tmp_path / "cut.jpg", tmp_path / "text.png"
    cut.write_bytes(good[0].read_bytes()[:400])
    text.write_text("not an image")
    batch, *_ = batches(ImageFiles(tmp_path, [str(path) for path in (good[0], cut, text, good[1])]))
    assert len(batch.crops[0]) == 4
    assert set(batch.failures) == {str(cut), str(text)}
    known: set[str] = set()
    for _ in range(2):
        report_unreadable(batch.failures, known, limit=2)
    assert sum("cut.jpg" in message for message in caplog.messages) == 1
    with pytest.raises(ValueError, match=r"max_unreadable=2.*third\.jpg"):
        report_unreadable({"third.jpg": "broken"}, known, limit=2)
    with pytest.raises(ValueError, match="none of the 2 images"):
        MultiCropImages(ImageFiles(tmp_path, ["cut.jpg", "text.png"]), VIEWS, seed=0)[ImageKey(0, 0)]


def test_a_replacement_has_the_views_of_its_place(image_folder: Path, tmp_path: Path) -> None:
    """What was drawn before an image turned out to be unreadable leaves no trace."""
    good = next(image_folder.rglob("*.jpg"))
    content = good.read_bytes()
    headless = tmp_path / "headless.jpg"
    headless.write_bytes(content[: content.find(b"\xff\xda")] + b"\xff\xd9")  # its size can be read, its pixels cannot
    (pixels, _, failures), (other_pixels, _, other_failures) = (
        MultiCropImages(ImageFiles(tmp_path, [name, str(good)]), VIEWS, 0)[ImageKey(0, 0)]
        for name in ("headless.jpg", "absent.jpg")
    )
    assert (*failures, *other_failures) == (str(headless), str(tmp_path / "absent.jpg"))
    assert all(map(np.array_equal, pixels, other_pixels))


def test_batch_must_fit_processes_and_images() -> None:
    with pytest.raises(ValueError, match="multiple of the 3 processes"):
        GlobalBatchSampler(100, TRAIN, rank=0, world_size=3)
    with pytest.raises(ValueError, match=r"multiple of the 2 processes times train\.accumulate=4"):
        GlobalBatchSampler(100, TrainConfig(batch_size=4, accumulate=4), rank=0, world_size=2)
    with pytest.raises(ValueError, match="fewer than one batch"):
        GlobalBatchSampler(3, TRAIN, rank=0, world_size=1)


# What networks get.


def batch(folder: Path, on_device: bool) -> Batch:
    views = ViewsConfig(global_size=64, local_size=32, local_crops=4, on_device=on_device)
    dataset = MultiCropImages(images_of_folder(folder), views, seed=1)
    return dataset.collate([dataset[ImageKey(epoch, index)] for epoch in range(4) for index in range(12)])


def levels(inputs: Tensor) -> Tensor:
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (inputs * deviation + mean) * 255


def test_colours_on_the_device_are_the_workers(image_folder: Path) -> None:
    """Every operation acts in some of the 48 images: on average within half a level, most values within one; bytes are normalised."""
    here, there = batch(image_folder, on_device=False), batch(image_folder, on_device=True)
    draws = there.colours[1]
    assert all(acts.any() for acts in (draws.jitter_V, draws.grey_V, draws.solarise_V, draws.radius_V > 0))
    inputs = [network_inputs(made, CPU) for made in (here, there)]
    assert len(here.crops) == 6
    for crops, plain, normalised, changed in zip(here.crops, there.crops, *inputs, strict=True):
        assert normalised.dtype == torch.float32
        assert normalised.is_contiguous()
        torch.testing.assert_close(levels(normalised), crops.float(), atol=1e-3, rtol=0)
        difference = (levels(changed) - crops.float()).abs()
        assert difference.mean() < 0.5
        assert (difference > 2.5).float().mean() < 0.02
        # Solarisation may tear levels round 128 apart, in few pixels.
        assert difference.flatten(1).mean(dim=1).max() < 3
        assert (plain.float() - crops.float()).abs().mean() > 5, "colours do change"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_colours_on_a_gpu_are_those_on_the_cpu(image_folder: Path) -> None:
    made = batch(image_folder, on_device=True)
    pinned = next(iter(DataLoader([made], batch_size=None, pin_memory=True)))
    assert all(crops.is_pinned() for crops in pinned.crops)
    for on_cpu, on_gpu in zip(network_inputs(made, CPU), network_inputs(pinned, torch.device("cuda")), strict=True):
        difference = (levels(on_cpu) - levels(on_gpu.cpu())).abs().numpy()
        assert np.median(difference) == 0
        assert difference.mean() < 0.05


# Workers.


class Surroundings(Dataset[tuple[set[int], int, int]]):
    """Where an item is made: the cores, and the threads of OpenCV and of torch."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[set[int], int, int]:
        return os.sched_getaffinity(0), cv2.getNumThreads(), torch.get_num_threads()


def test_workers_are_kept_to_a_core_and_a_thread() -> None:
    allowed = os.sched_getaffinity(0)
    cores = [max(allowed), min(allowed)]
    for given, expected in ((cores, [{core} for core in cores]), (None, [allowed] * 2)):
        loader = DataLoader(Surroundings(), batch_size=None, num_workers=2, worker_init_fn=partial(set_up_worker, given))
        assert list(map(tuple, loader)) == [(where, 1, 1) for where in expected]
    assert os.sched_getaffinity(0) == allowed


def test_workers_are_no_more_than_there_are_cores(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And shared memory must hold two batches for each, of all processes of the machine; on less of it they would hang."""
    dataset, sampler = MultiCropImages(images_of_folder(image_folder), VIEWS, seed=0), GlobalBatchSampler(12, TRAIN, 0, 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    caplog.set_level(logging.INFO)
    for wanted, workers in ((5, 2), (1, 1), (0, 0)):
        with warnings.catch_warnings(action="error"):
            assert build_loader(dataset, sampler, DataConfig(workers=wanted), pin_memory=False).num_workers == workers
    assert caplog.messages == ["2 workers, as many as there are cores, instead of data.workers=5"]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    needed = 2 * TRAIN.batch_size * sum(3 * kind.size**2 for kind in dataset.kinds)
    whole = 2 * needed  # for both processes on the machine, of which each has one core
    for free, total, enough in ((needed - 1, whole, False), (needed, whole - 1, False), (needed, whole, True)):
        monkeypatch.setattr(shutil, "disk_usage", lambda folder, free=free, total=total: Mock(free=free, total=total))
        refused = pytest.raises(ValueError, match=r"--data\.workers 5: .*--data\.workers 0, .*--shm-size")
        with nullcontext() if enough else refused:
            build_loader(dataset, sampler, DataConfig(workers=5), pin_memory=False)


def test_each_worker_has_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {7, 2, 3, 11, 5, 8})
    assert worker_cores(6) == [2, 3, 5, 7, 8, 11]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    shares = []
    for process in range(3):
        monkeypatch.setenv("LOCAL_RANK", str(process))
        shares.append(worker_cores(2))
    assert shares == [[2, 3], [5, 7], [8, 11]]
    with pytest.raises(ValueError, match="9 workers on this machine and 6 cores"):
        worker_cores(3)
