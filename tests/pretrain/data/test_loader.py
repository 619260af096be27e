"""Batches do not depend on workers, processes or restarts; unreadable images are named and counted."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pretrain.config import ViewsConfig
from pretrain.data.images import ImageFiles, images_of_folder
from pretrain.data.loader import Batch, GlobalBatchSampler, ImageKey, MultiCropImages, build_loader
from pretrain.data.source import ImageSource
from pretrain.data.unreadable import UnreadableImages
from pretrain.data.views import view_kinds

VIEWS = ViewsConfig(global_size=32, local_size=16, local_crops=1)


def batches(
    source: ImageSource,
    workers: int,
    rank: int = 0,
    world_size: int = 1,
    steps: tuple[int, int] = (0, 6),
    colours: bool = True,
) -> list[Batch]:
    sampler = GlobalBatchSampler(len(source.names), batch_size=4, seed=3, rank=rank, world_size=world_size)
    sampler.plan(*steps)
    dataset = MultiCropImages(source, view_kinds(VIEWS), seed=3, colours=colours)
    return list(build_loader(dataset, sampler, workers, pin_memory=False))  # type: ignore[arg-type]


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
        assert all(map(equal, alone, batches(source, workers, colours=colours)))


def test_crops_are_bytes(image_folder: Path) -> None:
    batch = batches(images_of_folder(image_folder), 0, steps=(0, 1))[0]
    assert [(crops.dtype, tuple(crops.shape)) for crops in batch.crops] == [
        (torch.uint8, (4, 3, size, size)) for size in (32, 32, 16)
    ]


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
    first, second, other = (dataset[ImageKey(0, index, group)].views for index, group in ((0, 4), (1, 4), (0, 5)))
    assert first.boxes == second.boxes != other.boxes
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
    assert samples[0].views.boxes == samples[1].views.boxes
    assert all(map(np.array_equal, samples[0].views.pixels, samples[1].views.pixels))


def test_batch_must_fit_processes_and_images() -> None:
    with pytest.raises(ValueError, match="multiple of the 3 processes"):
        GlobalBatchSampler(100, batch_size=4, seed=0, rank=0, world_size=3)
    with pytest.raises(ValueError, match="fewer than one batch"):
        GlobalBatchSampler(3, batch_size=4, seed=0, rank=0, world_size=1)
