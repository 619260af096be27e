"""Every kind of data set trains; what a path is, is told by the path."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.cifar import LAYOUTS, CifarLayout
from pretrain.__main__ import main
from pretrain.config import DataKind, parse_run
from pretrain.data.cifar import CifarTrainImages
from pretrain.data.images import find_images
from pretrain.data.open_source import detect_kind, open_source
from pretrain.run import pretrain
from tests.conftest import RunMain
from tests.pretrain.conftest import tiny_options

RECIPE = "sample_dino"


def write_list(images: list[Path], folder: Path) -> Path:
    (folder / "train.txt").write_text("\n".join(map(str, images)))
    return folder / "train.txt"


def write_coco(images: list[Path], folder: Path) -> Path:
    (folder / "train2017").mkdir()
    (folder / "annotations").mkdir()
    for image in images:
        (folder / "train2017" / image.name).write_bytes(image.read_bytes())
    path = folder / "annotations/instances_train2017.json"
    path.write_text(json.dumps({"images": [{"file_name": image.name} for image in images]}))
    return path


def write_cifar(layout: CifarLayout) -> Callable[[list[Path], Path], Path]:
    def write(images: list[Path], folder: Path) -> Path:
        rng = np.random.default_rng(0)
        train_files = layout.train_files[:2]
        for name in (*train_files, layout.test_file):
            rng.integers(0, 256, (12 // len(train_files), layout.label_bytes + 3072), dtype=np.uint8).tofile(folder / name)
        return folder

    return write


def write_tar(images: list[Path], folder: Path) -> Path:
    for number, share in enumerate((images[:7], images[7:])):
        with tarfile.open(folder / f"shard-{number:03d}.tar", "w") as archive:
            for image in share:
                archive.add(image, image.name)
                label = tarfile.TarInfo(f"{image.stem}.cls")
                label.size = 1
                archive.addfile(label, io.BytesIO(b"0"))
    return folder / "shard-{000..001}.tar"


KINDS: dict[str, tuple[DataKind, Callable[[list[Path], Path], Path]]] = {
    "folder": ("folder", lambda images, folder: images[0].parent.parent),
    "list": ("list", write_list),
    "coco": ("coco", write_coco),
    "cifar-10": ("cifar", write_cifar(LAYOUTS[0])),
    "cifar-100": ("cifar", write_cifar(LAYOUTS[1])),
    "tar": ("tar", write_tar),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_trains(name: str, image_folder: Path, tmp_path: Path) -> None:
    kind, write = KINDS[name]
    (tmp_path / "data").mkdir()
    path = write(find_images(image_folder), tmp_path / "data")
    assert detect_kind(path) == kind
    options = tiny_options(
        path, tmp_path / "run", "dino", data__tar_index=tmp_path / "index", train__batch_size=6, data__workers=2
    )
    config = parse_run([RECIPE, *options])
    content = torch.load(pretrain(config), weights_only=True)
    source = open_source(path, "auto", tmp_path / "index")
    assert len(source.names) == 12
    assert content["step"] == 4
    assert len(set(source.names)) == 12
    # The same images under the kind's own name, so the run is complete.
    assert torch.load(pretrain(parse_run([RECIPE, *options, "--data.kind", kind])), weights_only=True)["step"] == 4


def test_kinds_of_the_same_images_make_the_same_views(image_folder: Path, tmp_path: Path) -> None:
    images = find_images(image_folder)
    (tmp_path / "data").mkdir()
    folder = open_source(image_folder, "auto", tmp_path)
    for write in (write_list, write_tar):
        source = open_source(write(images, tmp_path / "data"), "auto", tmp_path / "index")
        assert [source.load(index) for index in range(12)] == [folder.load(index) for index in range(12)]


def test_other_names_are_other_data(image_folder: Path, tmp_path: Path) -> None:
    """Every kind's listing is part of what a run is."""
    (tmp_path / "data").mkdir()
    path = write_tar(find_images(image_folder), tmp_path / "data")

    def run(data: Path) -> None:
        options = tiny_options(data, tmp_path / "run", "dino", data__tar_index=tmp_path / "index", train__epochs=1)
        pretrain(parse_run([RECIPE, *options, "--optim.warmup_epochs", "0"]))

    run(path)
    with pytest.raises(ValueError, match="listing"):
        run(path.with_name("shard-{000..000}.tar"))


def test_a_cifar_picture_is_its_planes(tmp_path: Path) -> None:
    write_cifar(LAYOUTS[1])([], tmp_path)
    source = CifarTrainImages(tmp_path)
    record = np.fromfile(tmp_path / "train.bin", dtype=np.uint8).reshape(12, -1)[4]
    assert source.describe(4) == f"{tmp_path}/train.bin:4"
    for channel in range(3):
        plane = record[2 + channel * 1024 : 2 + (channel + 1) * 1024].reshape(32, 32)
        assert np.array_equal(source.load(4)[..., channel], plane)


def test_a_folder_is_told_by_what_it_holds(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert detect_kind(tmp_path) == "folder"
    (tmp_path / "0.tar").touch()
    assert detect_kind(tmp_path) == "tar"
    assert len(open_source(tmp_path, "folder", tmp_path / "index").names) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.path", "{folder}/absent"], "absent does not exist; give a folder of images"),
        (["--data.kind", "zip"], "zip"),
        (["--data.kind", "cifar"], "does not hold CIFAR-10's test_batch.bin or CIFAR-100's test.bin"),
        (["--data.kind", "tar"], "no .tar file in"),
        (["--data.kind", "coco"], "is not a file; give COCO's annotations"),
        (["--data.kind", "list"], "is not a file; give a text file"),
        (["--data.path", "{folder}/{{0..2}}.tar"], "3 of 3 shards are absent"),
        (["--data.path", "{folder}/empty.txt"], "names no image"),
        (["--data.path", "{folder}/broken.tar"], "broken.tar is damaged"),
        (["--data.pin_workers", "true", "--data.workers", "4000"], "4000 workers on this machine"),
        (["--data.pin_workers", "true"], "data.pin_workers has no effect with data.workers=0"),
    ],
)
def test_mistakes_are_one_line(image_folder: Path, tmp_path: Path, run_main: RunMain, options: list[str], message: str) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "broken.tar").write_bytes(bytes(range(256)) * 8)
    given = [option.format(folder=tmp_path) for option in options]
    finished = run_main(main, [RECIPE, *tiny_options(image_folder, tmp_path / "run", "dino"), *given])
    assert finished.status == 2
    assert message in finished.stderr
    assert len(finished.stderr.splitlines()) == 1, finished.stderr


@pytest.mark.parametrize("method", ["dino", "patch_matching"])
def test_colours_on_the_device_train(method: str, image_folder: Path, tmp_path: Path) -> None:
    """To nearly the same loss as with colours changed in the workers, and both repeat themselves."""
    losses = {}
    for place, repetition in ((True, 0), (True, 1), (False, 0)):
        output = tmp_path / f"{place}{repetition}"
        options = tiny_options(image_folder, output, "dino", views__on_device=place, train__epochs=1)
        options += ["--optim.warmup_epochs", "0", "--method", method]
        pretrain(parse_run([RECIPE, *options]))
        lines = (output / "log.jsonl").read_text().splitlines()
        losses[place, repetition] = [json.loads(line)["loss"] for line in lines]
    assert losses[True, 0] == losses[True, 1]
    assert losses[True, 0] != losses[False, 0]
    assert losses[True, 0] == pytest.approx(losses[False, 0], abs=0.05)
