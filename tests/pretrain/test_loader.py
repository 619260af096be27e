"""Batches do not depend on workers, processes or restarts; unreadable images are named and counted."""

from pathlib import Path

import pytest
import torch

from pretrain.data.images import UnreadableImages, find_images
from pretrain.data.loader import Batch, GlobalBatchSampler, ImageKey, MultiCropImages, build_loader
from pretrain.data.views import ViewsConfig, view_kinds

VIEWS = ViewsConfig(global_size=32, local_size=16, local_crops=1)


def batches(
    paths: list[Path], workers: int, rank: int = 0, world_size: int = 1, steps: tuple[int, int] = (0, 6)
) -> list[Batch]:
    sampler = GlobalBatchSampler(len(paths), batch_size=4, seed=3, rank=rank, world_size=world_size)
    sampler.plan(*steps)
    return list(build_loader(MultiCropImages(paths, view_kinds(VIEWS), seed=3), sampler, workers, pin_memory=False))  # type: ignore[arg-type]


def equal(a: Batch, b: Batch) -> bool:
    return all(map(torch.equal, a.crops, b.crops)) and all(map(torch.equal, a.boxes, b.boxes))


def test_workers_do_not_change_batches(image_folder: Path) -> None:
    paths = find_images(image_folder)
    assert all(map(equal, batches(paths, 0), batches(paths, 2)))


def test_a_restart_continues_the_same_batches(image_folder: Path) -> None:
    paths = find_images(image_folder)
    whole = batches(paths, 0)
    assert all(map(equal, whole[4:], batches(paths, 0, steps=(4, 6))))


def test_processes_share_the_global_batches(image_folder: Path) -> None:
    paths = find_images(image_folder)
    shares = [batches(paths, 0, rank, 2) for rank in range(2)]
    for whole, first, second in zip(batches(paths, 0), *shares, strict=True):
        for index, crops in enumerate(whole.crops):
            assert torch.equal(crops[0::2], first.crops[index])
            assert torch.equal(crops[1::2], second.crops[index])


def test_every_epoch_sees_every_image_once() -> None:
    sampler = GlobalBatchSampler(12, batch_size=4, seed=0, rank=0, world_size=1)
    sampler.plan(0, 6)
    keys = [key for batch in sampler for key in batch]
    for epoch in range(2):
        assert sorted(index for when, index, _ in keys if when == epoch) == list(range(12))


def test_groups_share_boxes_and_flips(image_folder: Path) -> None:
    paths = find_images(image_folder)
    groups = {}
    for world_size in (1, 2):
        keys: list[ImageKey] = []
        for rank in range(world_size):
            sampler = GlobalBatchSampler(len(paths), 4, 3, rank, world_size, shared_by=2)
            sampler.plan(0, 3)
            keys += [key for batch in sampler for key in batch]
        groups[world_size] = {key.image: key.group for key in keys}
    assert groups[1] == groups[2]
    assert sorted(groups[1].values()) == [group for group in range(6) for _ in range(2)]
    dataset = MultiCropImages(paths, view_kinds(VIEWS), seed=3)
    boxes = [[view.box for view in dataset[ImageKey(0, index, group)].views] for index, group in ((0, 4), (1, 4), (0, 5))]
    assert boxes[0] == boxes[1] != boxes[2]


def test_unreadable_images_are_replaced_and_named(image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = find_images(image_folder)[:4]
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(next(path for path in good if path.suffix == ".jpg").read_bytes()[:400])
    text = tmp_path / "text.png"
    text.write_text("not an image")
    failures: dict[str, str] = {}
    for batch in batches([good[0], cut, text, good[1]], 0, steps=(0, 1)):
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
        MultiCropImages([bad], view_kinds(VIEWS), seed=0)[ImageKey(0, 0)]


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a folder"):
        find_images(tmp_path / "absent")
    with pytest.raises(ValueError, match="no image under"):
        find_images(tmp_path)


def test_batch_must_fit_processes_and_images() -> None:
    with pytest.raises(ValueError, match="multiple of the 3 processes"):
        GlobalBatchSampler(100, batch_size=4, seed=0, rank=0, world_size=3)
    with pytest.raises(ValueError, match="fewer than one batch"):
        GlobalBatchSampler(3, batch_size=4, seed=0, rank=0, world_size=1)
