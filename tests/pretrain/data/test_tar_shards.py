"""Shards are read at random, as written; what is wrong with one is said in one line."""

import io
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from pretrain.data import tar_shards
from pretrain.data.tar_shards import TarShards, expand_braces, find_shards, open_shards


def write_shard(path: Path, members: Mapping[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            information = tarfile.TarInfo(name)
            information.size = len(content)
            archive.addfile(information, io.BytesIO(content))
    return path


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Webdataset's layout: images beside labels; a folder and a long name; a shard without images."""
    long = "n01440764/" + "x" * 150 + ".JPEG"
    first = write_shard(tmp_path / "set/0.tar", {"a.jpg": b"first", "a.cls": b"3", "b.png": b"", "b.json": b"{}"})
    second = write_shard(tmp_path / "set/1.tar", {"only.cls": b"1"})
    third = write_shard(tmp_path / "set/2.tar", {"__key__": b"", "a.jpg": b"third" * 1000, long: b"long"})
    return [first, second, third]


def test_images_are_found_and_read(shards: list[Path], tmp_path: Path) -> None:
    source = open_shards(shards, tmp_path / "index")
    assert [name[:10] for name in source.names] == ["0.tar/a.jp", "0.tar/b.pn", "2.tar/a.jp", "2.tar/n014"]
    contents = [b"first", b"", b"third" * 1000, b"long"]
    for index in (3, 0, 2, 1, 3):
        assert source.load(index) == contents[index]
    assert source.describe(2) == str(tmp_path / "set/2.tar/a.jpg")
    copy: TarShards = pickle.loads(pickle.dumps(source))
    assert copy.load(2) == contents[2]


def test_places_are_read_once(shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_shards(shards, tmp_path / "index", start=2)
    assert len(list((tmp_path / "index").iterdir())) == 3
    with monkeypatch.context() as patch:
        patch.setattr(tar_shards, "read_index", lambda shard: pytest.fail(f"{shard} is read again"))
        again = open_shards(shards, tmp_path / "index")
    assert list(again.names) == list(first.names)
    assert again.load(3) == b"long"
    write_shard(shards[0], {"other.jpg": b"changed"})
    assert open_shards(shards, tmp_path / "index").load(0) == b"changed"


def test_many_shards_need_few_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_shards, "_OPEN_SHARDS", 2)
    paths = [write_shard(tmp_path / f"{number}.tar", {"a.jpg": b"%d" % number}) for number in range(5)]
    before = len(list(Path("/proc/self/fd").iterdir()))
    source = open_shards(paths, tmp_path / "index")
    for index in (0, 1, 2, 3, 4, 3, 0, 2, 2):
        assert source.load(index) == b"%d" % index
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 2


def test_damaged_shards_are_named(shards: list[Path], tmp_path: Path) -> None:
    content = shards[2].read_bytes()
    long_header = content.find(b"././@PaxHeader")
    # Within a header, between members, within an image, within the last one; and with nonsense in place of a header.
    parts = [content[:end] for end in (700, long_header, 3000, content.rfind(b"long") + 2)]
    for damaged in (*parts, content[:long_header] + b"x" * 512 + content[long_header + 512 :]):
        shards[2].write_bytes(damaged)
        with pytest.raises(ValueError, match=r"2\.tar is damaged"):
            open_shards(shards, tmp_path / "index")
    shards[2].write_bytes(b"no archive" * 100)
    with pytest.raises(ValueError, match=r"2\.tar is damaged, or no uncompressed tar file"):
        open_shards(shards, tmp_path / "index")
    write_shard(shards[2], {"a.jpg": b"x"}, "w:gz")
    with pytest.raises(ValueError, match="no uncompressed tar file"):
        open_shards(shards, tmp_path / "index")


def test_a_shard_that_shrinks_during_training(shards: list[Path], tmp_path: Path) -> None:
    source = open_shards(shards, tmp_path / "index")
    shards[2].write_bytes(shards[2].read_bytes()[:2000])
    with pytest.raises(OSError, match="of the image's 5000 bytes"):
        source.load(2)


def test_a_damaged_index_is_named(shards: list[Path], tmp_path: Path) -> None:
    open_shards(shards, tmp_path / "index")
    index = min((tmp_path / "index").iterdir())
    index.write_bytes(index.read_bytes()[:100])
    with pytest.raises(ValueError, match=rf"{index.name}: damaged index of .*; delete it"):
        open_shards(shards, tmp_path / "index")


def test_shards_without_images(shards: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no image in the 1 shards"):
        open_shards([shards[1]], tmp_path / "index")


def test_shards_are_found(shards: list[Path], tmp_path: Path) -> None:
    folder = shards[0].parent
    assert find_shards(folder) == shards
    assert find_shards(folder / "{0..2}.tar") == shards
    assert find_shards(folder / "{2,0}.tar") == [shards[0], shards[2]]
    assert find_shards(shards[1]) == [shards[1]]
    with pytest.raises(ValueError, match=r"2 of 5 shards are absent, such as .*3\.tar"):
        find_shards(folder / "{0..4}.tar")
    with pytest.raises(ValueError, match=r"no \.tar file in"):
        find_shards(tmp_path)


def test_braces() -> None:
    assert expand_braces("s-{008..011}.tar") == ["s-008.tar", "s-009.tar", "s-010.tar", "s-011.tar"]
    assert expand_braces("{a,b}-{1..2}.tar") == ["a-1.tar", "a-2.tar", "b-1.tar", "b-2.tar"]
    assert expand_braces("plain.tar") == ["plain.tar"]
    for wrong in ("{3..1}.tar", "{}.tar", "{a..b}.tar", "{1}.tar"):
        with pytest.raises(ValueError, match="neither an ascending range"):
            expand_braces(wrong)
