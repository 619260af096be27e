"""Damaged images are named; augmentation depends on nothing but seed and place."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, TRANSFORMS
from mmengine.runner import Runner
from PIL import Image

from eval.openmmlab.loading import ImageFileError, Place, PlaceSampler, ReadImage, seed_generators

IMAGES, BATCH = 5, 4


@TRANSFORMS.register_module()
class _Roll:
    def __call__(self, results: dict[str, Any]) -> tuple[int, float, float, float]:
        return results["number"], random.random(), float(np.random.rand()), float(torch.rand(()))


@DATASETS.register_module()
class _Dice(BaseDataset):
    def load_data_list(self) -> list[dict[str, Any]]:
        return [{"number": index} for index in range(IMAGES)]


DICE = {"type": "SeededByPlace", "dataset": {"type": "_Dice", "pipeline": [{"type": "_Roll"}]}, "seed": 3}


def loaded(workers: int = 0, batches: int = 4, skip: int = 0, **dataset: Any) -> list[Any]:
    parts = {"dataset": {**DICE, **dataset}, "sampler": {"type": "PlaceSampler", "shuffle": True}}
    how = {"batch_size": BATCH, "num_workers": workers, "collate_fn": {"type": "default_collate"}}
    loader = Runner.build_dataloader({**parts, **how}, seed=7)
    if skip:
        loader.sampler.skip(skip)
    random.seed(workers)  # what the generators did before must not matter
    iterator = iter(loader)
    return [torch.stack([column.double() for column in next(iterator)]) for _ in range(batches)]


def test_images_do_not_depend_on_the_workers() -> None:
    wanted = torch.cat(loaded(), dim=1)
    for workers in (1, 3):
        assert torch.equal(torch.cat(loaded(workers), dim=1), wanted)
    # The same image has another augmentation the next time, and every generator takes part.
    assert sorted(wanted[0, :IMAGES].tolist()) == list(range(IMAGES))
    assert len(set(wanted[1:].flatten().tolist())) == wanted[1:].numel()
    assert not torch.equal(torch.cat(loaded(seed=4), dim=1)[1:], wanted[1:])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_continued_run_loads_what_the_uninterrupted_one_would(workers: int) -> None:
    torch.testing.assert_close(loaded(workers, batches=2, skip=3 * BATCH), loaded(batches=5)[3:], rtol=0, atol=0)


def test_processes_share_the_places_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def places(rank: int, world_size: int, number: int) -> list[Place]:
        monkeypatch.setattr("mmengine.dataset.sampler.get_dist_info", lambda: (rank, world_size))
        iterator = iter(PlaceSampler(range(IMAGES), seed=1))
        return [next(iterator) for _ in range(number)]

    alone = places(0, 1, 12)
    assert [place.position for place in alone] == list(range(12))
    shared = [place for rank in range(3) for place in places(rank, 3, 4)]
    assert sorted(shared, key=lambda place: place.position) == alone


def test_purposes_have_numbers_of_their_own() -> None:
    def roll(*arguments: Any) -> float:
        seed_generators(*arguments)
        return random.random()

    # NumPy pads seeds with zeros: (seed, position) alone would equal (seed, process, iteration) for iteration 0.
    rolls = [roll(0, "loading", 0), roll(0, "loading", 1), roll(0, "computing", 0, 0), roll(0, "computing", 1, 0)]
    assert len(set(rolls)) == 4


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))
    image.save(tmp_path / "photo.jpg", quality=90)
    return tmp_path / "photo.jpg"


def test_whole_images_are_read_as_mmcv_reads_them(photo: Path) -> None:
    for path in (photo, photo.with_suffix(".png")):
        Image.open(photo).save(path)
        ours, theirs = (reader()({"img_path": str(path)}) for reader in (ReadImage, LoadImageFromFile))
        np.testing.assert_array_equal(ours.pop("img"), theirs.pop("img"))
        assert ours == theirs


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("part", [0.2, 0.6, 0.99])
def test_a_jpeg_that_breaks_off_is_named(photo: Path, part: float, progressive: bool) -> None:
    Image.open(photo).save(photo, progressive=progressive)
    content = photo.read_bytes()
    photo.write_bytes(content[: int(part * len(content))])
    with pytest.raises(ImageFileError, match=r"photo\.jpg: (the JPEG breaks off|not a readable image)"):
        ReadImage()({"img_path": str(photo)})
    for damage in (b"", b"<html>"):
        photo.write_bytes(damage)
        with pytest.raises(ImageFileError, match=r"photo\.jpg: not a readable image"):
            ReadImage()({"img_path": str(photo)})
    photo.write_bytes(content + b"\0" * 100)  # bytes after the end are allowed
    assert ReadImage()({"img_path": str(photo)})["img_shape"] == (40, 60)


def test_a_photo_of_another_size_than_its_annotations_is_named(photo: Path) -> None:
    """Boxes would lie beside their objects, or outside."""
    assert ReadImage()({"img_path": str(photo), "height": 40, "width": 60})["img_shape"] == (40, 60)
    with pytest.raises(ImageFileError, match=r"photo\.jpg: 60 x 40 pixels, but 120 x 80 by the annotations"):
        ReadImage()({"img_path": str(photo), "height": 80, "width": 120})
    # A worker hands over its whole traceback, which shrinks to the last line.
    message = "Caught X in worker\nTraceback:\n  ...\neval.openmmlab.loading.ImageFileError: a.jpg: not readable\n"
    assert str(ImageFileError(message)) == "a.jpg: not readable"


@pytest.mark.parametrize("orientation", range(2, 9))
def test_the_orientation_is_ignored_since_annotations_are_on_stored_pixels(orientation: int, tmp_path: Path) -> None:
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:32] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    found = ReadImage()({"img_path": str(tmp_path / "turned.jpg"), "height": 64, "width": 96})["img"]
    assert np.abs(found.astype(int) - pixels).max() < 9
