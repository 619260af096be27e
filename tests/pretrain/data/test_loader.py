"""Batches do not depend on workers, processes or restarts; unreadable images are named; networks get normalised floats."""

import os
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from common.images import IMAGENET_MEAN, IMAGENET_STD
from pretrain.config import DataConfig, ViewsConfig
from pretrain.data.loader import (
    Batch,
    GlobalBatchSampler,
    ImageKey,
    MultiCropImages,
    UnreadableImages,
    build_loader,
    collate,
    network_inputs,
    set_up_worker,
    worker_cores,
)
from pretrain.data.sources import ImageFiles, images_of_folder
from pretrain.data.views import view_kinds

CPU = torch.device("cpu")
VIEWS = ViewsConfig(global_size=32, local_size=16, local_crops=1)


def batches(
    source: ImageFiles,
    workers: int,
    rank: int = 0,
    world_size: int = 1,
    steps: tuple[int, int] = (0, 6),
    colours: bool = True,
) -> list[Batch]:
    sampler = GlobalBatchSampler(len(source.names), batch_size=4, seed=3, rank=rank, world_size=world_size)
    sampler.plan(*steps)
    dataset = MultiCropImages(source, view_kinds(VIEWS), seed=3, colours=colours)
    return list(build_loader(dataset, sampler, DataConfig(workers=workers), pin_memory=False))


def equal(a: Batch, b: Batch) -> bool:
    draws = zip(a.colours, b.colours, strict=True)
    same_draws = all(np.array_equal(ours, theirs) for pair in draws for ours, theirs in zip(*pair, strict=True))
    return same_draws and all(map(torch.equal, a.crops, b.crops)) and all(map(torch.equal, a.boxes, b.boxes))


@pytest.mark.parametrize("colours", [True, False])
def test_workers_do_not_change_batches(image_folder: Path, colours: bool) -> None:
    source = images_of_folder(image_folder)
    alone = batches(source, 0, colours=colours)
    assert [len(batch.colours) for batch in alone] == [0 if colours else 3] * 6
    for workers in (1, 3):
        made = batches(source, workers, colours=colours)
        assert len(made) == len(alone)
        assert all(map(equal, alone, made))


def test_a_restart_continues_the_same_batches(image_folder: Path) -> None:
    source = images_of_folder(image_folder)
    whole = batches(source, 0)
    assert all(map(equal, whole[4:], batches(source, 0, steps=(4, 6))))


def test_processes_share_the_global_batches(image_folder: Path) -> None:
    source = images_of_folder(image_folder)
    whole = batches(source, 0)
    for world_size in (2, 4):
        for rank in range(world_size):
            for all_crops, share in zip(whole, batches(source, 0, rank, world_size), strict=True):
                for crops, own in zip(all_crops.crops, share.crops, strict=True):
                    assert torch.equal(crops[rank::world_size], own)


def test_every_epoch_sees_every_image_once() -> None:
    sampler = GlobalBatchSampler(12, batch_size=4, seed=0, rank=0, world_size=1)
    sampler.plan(0, 6)
    keys = [key for batch in sampler for key in batch]
    for epoch in range(2):
        assert sorted(index for when, index, _ in keys if when == epoch) == list(range(12))


def test_groups_share_boxes_and_flips(image_folder: Path) -> None:
    source = images_of_folder(image_folder)
    groups = {}
    for world_size in (1, 2):
        keys: list[ImageKey] = []
        for rank in range(world_size):
            sampler = GlobalBatchSampler(len(source.names), 4, 3, rank, world_size, shared_by=2)
            sampler.plan(0, 3)
            keys += [key for batch in sampler for key in batch]
        groups[world_size] = {key.image: key.group for key in keys}
    assert groups[1] == groups[2]
    assert sorted(groups[1].values()) == [group for group in range(6) for _ in range(2)]
    dataset = MultiCropImages(source, view_kinds(VIEWS), seed=3)
    first, second, other = (dataset[ImageKey(0, index, group)].draws for index, group in ((0, 4), (1, 4), (0, 5)))
    assert np.array_equal(first.boxes_V5, second.boxes_V5)
    assert not np.array_equal(first.boxes_V5, other.boxes_V5)
    assert all(map(np.array_equal, first.colours, second.colours))
    assert not all(map(np.array_equal, first.colours, other.colours))


def test_unreadable_images_are_replaced_and_named(image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = images_of_folder(image_folder)
    good = [image_folder / name for name in folder.names[:4]]
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(next(path for path in good if path.suffix == ".jpg").read_bytes()[:400])
    text = tmp_path / "text.png"
    text.write_text("not an image")
    failures: dict[str, str] = {}
    source = ImageFiles(tmp_path, [str(path) for path in (good[0], cut, text, good[1])])
    for batch in batches(source, 0, steps=(0, 1)):
        assert len(batch.crops[0]) == 4
        failures.update(batch.failures)
    assert set(failures) == {str(cut), str(text)}
    counter = UnreadableImages(limit=2)
    counter.report(failures)
    counter.report(failures)
    assert sum("cut.jpg" in message for message in caplog.messages) == 1
    with pytest.raises(ValueError, match=r"max_unreadable=2.*third\.jpg"):
        counter.report({"third.jpg": "broken"})


def test_no_readable_image_at_all(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff nothing")
    with pytest.raises(ValueError, match="none of the 1 images"):
        MultiCropImages(images_of_folder(tmp_path), view_kinds(VIEWS), seed=0)[ImageKey(0, 0)]


def test_a_replacement_has_the_views_of_its_place(image_folder: Path, tmp_path: Path) -> None:
    """What was drawn before an image turned out to be unreadable leaves no trace."""
    good = next(image_folder.rglob("*.jpg"))
    content = good.read_bytes()
    headless = tmp_path / "headless.jpg"
    headless.write_bytes(content[: content.find(b"\xff\xda")] + b"\xff\xd9")  # its size can be read, its pixels cannot
    samples = []
    for bad in (headless, tmp_path / "absent.jpg"):
        samples.append(MultiCropImages(ImageFiles(tmp_path, [str(bad), str(good)]), view_kinds(VIEWS), 0)[ImageKey(0, 0)])
        assert set(samples[-1].failures) == {str(bad)}
    assert np.array_equal(samples[0].draws.boxes_V5, samples[1].draws.boxes_V5)
    assert all(map(np.array_equal, samples[0].pixels, samples[1].pixels))


def test_batch_must_fit_processes_and_images() -> None:
    with pytest.raises(ValueError, match="multiple of the 3 processes"):
        GlobalBatchSampler(100, batch_size=4, seed=0, rank=0, world_size=3)
    with pytest.raises(ValueError, match="fewer than one batch"):
        GlobalBatchSampler(3, batch_size=4, seed=0, rank=0, world_size=1)


# What networks get.

KINDS = view_kinds(ViewsConfig(global_size=64, local_size=32, local_crops=4))


def batch(folder: Path, colours: bool) -> Batch:
    dataset = MultiCropImages(images_of_folder(folder), KINDS, seed=1, colours=colours)
    return collate([dataset[ImageKey(epoch, index)] for epoch in range(4) for index in range(12)], colours=colours)


def levels(inputs: Tensor) -> Tensor:
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (inputs * deviation + mean) * 255


def test_bytes_are_normalised(image_folder: Path) -> None:
    made = batch(image_folder, colours=True)
    for crops, inputs in zip(made.crops, network_inputs(made, CPU), strict=True):
        assert inputs.dtype == torch.float32
        assert inputs.is_contiguous()
        torch.testing.assert_close(levels(inputs), crops.float(), atol=1e-3, rtol=0)


def test_colours_on_the_device_are_the_workers(image_folder: Path) -> None:
    """Every operation acts in some of the 48 images: on average within half a level, most values within one."""
    here, there = batch(image_folder, colours=True), batch(image_folder, colours=False)
    draws = there.colours[1]
    assert draws.jitter_V.any()
    assert draws.grey_V.any()
    assert draws.solarise_V.any()
    assert (draws.radius_V > 0).any()
    for crops, plain, inputs in zip(here.crops, there.crops, network_inputs(there, CPU), strict=True):
        difference = (levels(inputs) - crops.float()).abs()
        per_image = difference.flatten(1)
        assert difference.mean() < 0.5
        assert (difference > 2.5).float().mean() < 0.02
        # Solarisation may tear levels round 128 apart, in few pixels.
        assert per_image.mean(dim=1).max() < 3
        assert (plain.float() - crops.float()).abs().mean() > 5, "colours do change"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_colours_on_a_gpu_are_those_on_the_cpu(image_folder: Path) -> None:
    made = batch(image_folder, colours=False)
    pinned = made.pin_memory()
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

    def made(cores: list[int] | None) -> list[tuple[set[int], int, int]]:
        set_up = partial(set_up_worker, cores)
        return [tuple(item) for item in DataLoader(Surroundings(), batch_size=None, num_workers=2, worker_init_fn=set_up)]

    assert made(cores) == [({core}, 1, 1) for core in cores]
    assert made(None) == [(allowed, 1, 1)] * 2
    assert os.sched_getaffinity(0) == allowed


@pytest.fixture
def six_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {7, 2, 3, 11, 5, 8})


def test_each_worker_has_a_core(six_cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert worker_cores(6) == [2, 3, 5, 7, 8, 11]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    shares = []
    for process in range(3):
        monkeypatch.setenv("LOCAL_RANK", str(process))
        shares.append(worker_cores(2))
    assert shares == [[2, 3], [5, 7], [8, 11]]


def test_too_few_cores(six_cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="8 workers on this machine and 6 cores"):
        worker_cores(4)
