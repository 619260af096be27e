"""Every kind of data set is told by its path, read as written, and trains; what is wrong with one is said in one line."""

import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from common.cifar import LAYOUTS, CifarLayout
from pretrain.__main__ import main
from pretrain.config import DataConfig, parse_run
from pretrain.data.sources import (
    CifarImages,
    TarImages,
    detect_kind,
    find_shards,
    images_of_coco,
    images_of_folder,
    images_of_list,
    open_source,
)
from pretrain.data.views import decode_whole
from pretrain.run import pretrain
from tests.conftest import RunMain
from tests.pretrain.conftest import tiny_run


def write_list(images: list[Path], folder: Path) -> Path:
    (folder / "train.txt").write_text("\n".join(map(str, images)))
    return folder / "train.txt"


def write_coco(images: list[Path], folder: Path) -> Path:
    for image in images:
        touch(folder, f"train2017/{image.name}").write_bytes(image.read_bytes())
    return annotate(folder, *(image.name for image in images))


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
        labels = {f"{image.stem}.cls": b"0" for image in share}
        write_shard(folder / f"shard-{number:03d}.tar", {image.name: image.read_bytes() for image in share} | labels)
    return folder / "shard-{000..001}.tar"


def write_shard(path: Path, members: Mapping[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            information = tarfile.TarInfo(name)
            information.size = len(content)
            archive.addfile(information, io.BytesIO(content))
    return path


def touch(folder: Path, *names: str) -> Path:
    """Write files that hold their own names; returns the last one."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder / name


def annotate(root: Path, *names: str) -> Path:
    path = touch(root, "annotations/instances_train2017.json")
    path.write_text(json.dumps({"images": [{"id": 7, "file_name": name} for name in names], "annotations": []}))
    return path


KINDS: dict[str, tuple[str, Callable[[list[Path], Path], Path]]] = {
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
    images = [image_folder / name for name in images_of_folder(image_folder).names]
    path = write(images, tmp_path / "data")
    assert detect_kind(path) == kind
    index = tmp_path / "index"
    options = tiny_run(path, tmp_path / "run", "dino", data__tar_index=index, train__batch_size=6, data__workers=2)
    content = torch.load(pretrain(parse_run(options)), weights_only=True)
    assert content["step"] == 4
    source = open_source(DataConfig(path=path, tar_index=index))
    assert len(set(source.names)) == len(source.names) == 12
    if kind != "cifar":
        expected = sorted(images, key=lambda image: image.name) if kind == "coco" else images
        assert [source.load(index) for index in range(12)] == [image.read_bytes() for image in expected]
    # The same images under the kind's own name, so the run is complete.
    assert torch.load(pretrain(parse_run([*options, "--data.kind", kind])), weights_only=True)["step"] == 4


def test_a_cifar_image_is_its_planes(tmp_path: Path) -> None:
    write_cifar(LAYOUTS[1])([], tmp_path)
    source = CifarImages(tmp_path)
    record = np.fromfile(tmp_path / "train.bin", dtype=np.uint8).reshape(12, -1)[4]
    assert source.describe(4) == f"{tmp_path}/train.bin:4"
    assert np.array_equal(decode_whole(source.load(4)).transpose(2, 0, 1), record[2:].reshape(3, 32, 32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.path", "{folder}/absent"], "data.path: {folder}/absent does not exist"),
        (["--data.kind", "zip"], "invalid choice 'zip' for argument '--data.kind'. Expected one of ('auto', 'folder', 'list'"),
        (["--data.kind", "cifar"], "does not hold CIFAR-10's test_batch.bin or CIFAR-100's test.bin"),
        (["--data.kind", "tar"], "no .tar file in"),
        (["--data.kind", "folder", "--data.path", "{folder}/absent"], "data.path: {folder}/absent does not exist"),
        (["--data.path", "{folder}/none"], "data.path: no image under {folder}/none"),
        (["--data.path", "{folder}/s-{{008..011.tar"], "write shards such as"),
        (["--data.kind", "coco"], "is not COCO's annotations, JSON with a list `images`"),
        (["--data.kind", "list"], "give a text file with the path of an image on each line"),
        (["--data.path", "{folder}/{{0..2}}.tar"], "3 of 3 shards are absent"),
        (["--data.path", "{folder}/empty.txt"], "names no image"),
        (["--data.path", "{folder}/broken.tar"], "broken.tar is damaged"),
        (["--data.pin_workers", "true", "--data.workers", "4000"], "4000 workers on this machine"),
    ],
)
def test_mistakes_are_one_line(image_folder: Path, tmp_path: Path, run_main: RunMain, options: list[str], message: str) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "broken.tar").write_bytes(bytes(range(256)) * 8)
    given = [option.format(folder=tmp_path) for option in options]
    finished = run_main(main, [*tiny_run(image_folder, tmp_path / "run", "dino"), *given])
    assert message.format(folder=tmp_path) in finished.mistake()


# Files of folders, lists and COCO's annotations.


def test_folders_at_any_depth(tmp_path: Path) -> None:
    """Sorted folder by folder: `b` before `b-2`, though `-` comes before `/`. Links are followed, but not for ever."""
    touch(tmp_path / "set", "b/2.jpg", "b/1.JPEG", "b-2/x.png", "a.webp", "notes.txt", "b/labels.json")
    touch(tmp_path / "elsewhere", "1.jpg")
    (tmp_path / "set/linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere/round").symlink_to(tmp_path / "set", target_is_directory=True)
    images = images_of_folder(tmp_path / "set")
    assert list(images.names) == ["a.webp", "b/1.JPEG", "b/2.jpg", "b-2/x.png", "linked/1.jpg"]
    assert images.load(1) == b"b/1.JPEG"
    assert images.describe(1) == str(tmp_path / "set/b/1.JPEG")


def test_hidden_entries_are_no_images(tmp_path: Path) -> None:
    """In folders and in shards, as macOS's archiver and Jupyter leave them; a folder of data may itself be hidden."""
    hidden = "._a.jpg", "cat/.ipynb_checkpoints/a.jpg", "__MACOSX/a.jpg", "@eaDir/a.jpg"
    touch(tmp_path / ".set", "a.JPG", "cat/a.jpg", *hidden)
    assert list(images_of_folder(tmp_path / ".set").names) == ["a.JPG", "cat/a.jpg"]
    write_shard(tmp_path / "shards/0.TAR", dict.fromkeys(("./a.JPG", "cat/a.jpg", *hidden), b""))
    touch(tmp_path / "shards", "._0.tar")
    source = open_source(DataConfig(path=tmp_path / "shards", tar_index=tmp_path / "index"))
    assert list(source.names) == ["0.TAR/./a.JPG", "0.TAR/cat/a.jpg"]


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_never_ends_is_an_unreadable_image(tmp_path: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(tmp_path / "a.jpg")
    else:
        (tmp_path / "a.jpg").symlink_to("/dev/zero")
    with pytest.raises(OSError, match="a folder, pipe or device, not a file"):
        images_of_folder(tmp_path).load(0)


def test_a_folder_of_two_kinds_asks_which(tmp_path: Path) -> None:
    """One archive among photographs would be all that is trained on."""
    touch(tmp_path, "class/a.jpg")
    shard = write_shard(tmp_path / "backup.tar", {"b.jpg": b""})
    with pytest.raises(ValueError, match=r"looks like tar and folder; say which by --data\.kind"):
        open_source(DataConfig(path=tmp_path))
    for kind, names in (("folder", ["class/a.jpg"]), ("tar", ["backup.tar/b.jpg"])):
        source = open_source(DataConfig(path=tmp_path, kind=kind, tar_index=tmp_path / "index"))
        assert list(source.names) == names
    shard.unlink()
    touch(tmp_path, "test_batch.bin")
    with pytest.raises(ValueError, match="looks like cifar and folder"):
        open_source(DataConfig(path=tmp_path))


@pytest.mark.parametrize("name", ["a\n.jpg", "a\x1b[2J.jpg", "a\x7f.jpg", "a\u2028.jpg"])
def test_names_with_control_characters_are_refused(tmp_path: Path, name: str) -> None:
    """They would shift the listing, by whose digest a run knows its images again."""
    touch(tmp_path / "set", name)
    (tmp_path / "list.txt").write_text("b.jpg\n" + name.replace("\n", "\x01") + "\n")
    for source, path in (("folder", "set"), ("list", "list.txt"), ("tar", "0.tar"), ("coco", "annotations/x_train2017.json")):
        write_shard(tmp_path / "0.tar", {name: b""})
        annotate(tmp_path, name).rename(tmp_path / "annotations/x_train2017.json")
        config = DataConfig(path=tmp_path / path, kind=source, tar_index=tmp_path / "index")
        with pytest.raises(ValueError, match=r"control characters|give a path below its folder") as caught:
            open_source(config)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["/etc/a.jpg", "../a.jpg", "x/../../a.jpg", "", ".a.jpg", "a//b.jpg"])
def test_cocos_names_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"instances_train2017\.json: file_name .*: give a path below its folder"):
        images_of_coco(annotate(tmp_path, "1.jpg", name))


def test_lists_keep_their_order_and_annotations_are_sorted(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/2.jpg", "far/3.jpg", *(f"train2017/{number}.jpg" for number in range(4)))
    (tmp_path / "list.txt").write_text(f"a/2.jpg\n\n  a/1.jpg \r\n{tmp_path}/far/3.jpg\na/2.jpg\n")
    images = images_of_list(tmp_path / "list.txt")
    assert list(images.names) == ["a/2.jpg", "a/1.jpg", f"{tmp_path}/far/3.jpg", "a/2.jpg"]
    assert [images.load(index) for index in range(4)] == [b"a/2.jpg", b"a/1.jpg", b"far/3.jpg", b"a/2.jpg"]
    images = images_of_coco(annotate(tmp_path, "3.jpg", "0.jpg", "2.jpg"))
    assert list(images.names) == ["0.jpg", "2.jpg", "3.jpg"]
    assert images.load(2) == b"train2017/3.jpg"


def test_absent_images_are_counted_and_other_json_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "train2017/1.jpg")
    (tmp_path / "list.txt").write_text("1.jpg\n2.jpg\nnowhere/3.jpg")
    with pytest.raises(ValueError, match=r"2 of the 3 images of .*list\.txt are absent, such as .*2\.jpg"):
        images_of_list(tmp_path / "list.txt")
    with pytest.raises(ValueError, match=r"1 of the 2 images of .* are absent, such as .*train2017/2\.jpg"):
        images_of_coco(annotate(tmp_path, "1.jpg", "2.jpg"))
    for text in ("[" * 99999, "{", "[]", "{}", '{"images": [{"id": 1}]}', '{"images": 3}'):
        (tmp_path / "instances.json").write_text(text)
        with pytest.raises(ValueError, match="is not COCO's annotations"):
            images_of_coco(tmp_path / "instances.json")


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class of ImageNet could be left out without a word."""
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    listed = os.scandir(tmp_path), os.scandir(tmp_path / "a"), PermissionError(13, "Permission denied", "b")
    monkeypatch.setattr(os, "scandir", Mock(side_effect=listed))
    with pytest.raises(PermissionError, match="b"):
        images_of_folder(tmp_path)


# Tar shards are read at random.


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Webdataset's layout: images beside labels; a folder and a long name; a shard without images."""
    long = "n01440764/" + "x" * 150 + ".JPEG"
    first = write_shard(tmp_path / "set/0.tar", {"a.jpg": b"first", "a.cls": b"3", "b.png": b"", "b.json": b"{}"})
    second = write_shard(tmp_path / "set/1.tar", {"only.cls": b"1"})
    third = write_shard(tmp_path / "set/2.tar", {"__key__": b"", "a.jpg": b"third" * 1000, long: b"long"})
    return [first, second, third]


def test_images_are_found_and_read(shards: list[Path], tmp_path: Path) -> None:
    source: TarImages = pickle.loads(pickle.dumps(TarImages(shards, tmp_path / "index")))
    assert [name[:10] for name in source.names] == ["0.tar/a.jp", "0.tar/b.pn", "2.tar/a.jp", "2.tar/n014"]
    contents = [b"first", b"", b"third" * 1000, b"long"]
    for index in (3, 0, 2, 1, 3):
        assert source.load(index) == contents[index]
    assert source.describe(2) == str(tmp_path / "set/2.tar/a.jpg")
    other = write_shard(tmp_path / "other/0.tar", {"a.jpg": b""})
    assert TarImages([shards[0], other], tmp_path / "index").describe(2) == str(other / "a.jpg")
    shards[2].write_bytes(shards[2].read_bytes()[:2000])
    with pytest.raises(OSError, match="of the image's 5000 bytes"):
        source.load(2)


def test_places_are_read_once(shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = TarImages(shards, tmp_path / "index")
    assert len(list((tmp_path / "index").iterdir())) == 3
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", lambda fileobj, mode: pytest.fail(f"{fileobj} is read again"))
        again = TarImages(shards, tmp_path / "index")
    assert list(again.names) == list(first.names)
    assert again.load(3) == b"long"
    write_shard(shards[0], {"other.jpg": b"changed"})
    assert TarImages(shards, tmp_path / "index").load(0) == b"changed"


def test_damaged_shards_are_named(shards: list[Path], tmp_path: Path) -> None:
    content = shards[2].read_bytes()
    long_header = content.find(b"././@PaxHeader")
    # Within a header, between members, within an image, within the last one; and with nonsense in place of a header.
    parts = [content[:end] for end in (700, long_header, 3000, content.rfind(b"long") + 2)]
    nonsense = (
        content[:long_header] + block + content[long_header + len(block) :] for block in (b"x" * 512, b"x" + bytes(1023))
    )
    for damaged in (*parts, *nonsense):
        shards[2].write_bytes(damaged)
        with pytest.raises(ValueError, match=r"2\.tar is damaged"):
            TarImages(shards, tmp_path / "index")
    for size in (b"77777777777", b"00004000010", b"-0000000001"):  # 8 GiB, 1 MiB and 8 bytes, less than nothing
        header = bytearray(content[long_header : long_header + 512])
        header[124:135] = size
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        shards[2].write_bytes(content[:long_header] + header + content[long_header + 512 :])
        with pytest.raises(ValueError, match=r"2\.tar is damaged"):
            TarImages(shards, tmp_path / "index")
    write_shard(shards[2], {"a.jpg": b"x"}, "w:gz")
    with pytest.raises(ValueError, match="not an uncompressed tar file"):
        TarImages(shards, tmp_path / "index")


@pytest.mark.parametrize(
    "content", ['[["a.jpg", 512', '[["a.jpg", 512, 99999999]]', '[["a.jpg", -512, 5]]', '[["a.jpg"]]', "[" * 9999]
)
def test_a_damaged_index_is_written_again(shards: list[Path], tmp_path: Path, content: str) -> None:
    TarImages(shards, tmp_path / "index")
    index = min((tmp_path / "index").iterdir())
    whole = index.read_bytes()
    index.write_text(content)
    assert TarImages(shards, tmp_path / "index").load(0) == b"first"
    assert index.read_bytes() == whole


def test_shards_without_images_are_named(shards: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no image in the 1 shards"):
        TarImages([shards[1]], tmp_path / "index")


@pytest.mark.parametrize(
    ("path", "numbers"), [("", [0, 1, 2]), ("{0..2}.tar", [0, 1, 2]), ("{2,0}.tar", [0, 2]), ("1.tar", [1]), ("{0,0}.tar", [0])]
)
def test_shards_are_found(shards: list[Path], path: str, numbers: list[int]) -> None:
    folder = shards[0].parent
    assert find_shards(folder / path) == [shards[number] for number in numbers]
    with pytest.raises(ValueError, match=r"2 of 5 shards are absent, such as .*3\.tar"):
        find_shards(folder / "{0..4}.tar")
