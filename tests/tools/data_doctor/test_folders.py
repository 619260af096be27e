import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from tools.data_doctor.folders import archive_is_whole, find_archives, find_folders, list_images, move_command, rename_command


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_entries_are_sorted_by_what_they_are(tmp_path: Path) -> None:
    _touch(tmp_path, "a.jpg", "b.JPG", "c.jpeg", "a.JPEG", "d.jpg.part", "._a.jpg", "Thumbs.db", "e.txt", "sub/f.jpg")
    listing = list_images(tmp_path, ".jpg")
    assert listing.files == {"a.jpg"}
    assert listing.misnamed == {"b.JPG": "b.jpg", "c.jpeg": "c.jpg"}
    assert listing.unfinished == ("d.jpg.part",)
    assert listing.clutter == ("._a.jpg", "Thumbs.db")
    assert listing.folders == ("sub",)
    # a.JPEG is no misnamed a.jpg, which is there too.
    assert listing.others == ("a.JPEG", "e.txt")


def test_folders_are_found_by_their_children_the_shallowest_first(tmp_path: Path) -> None:
    _touch(tmp_path, "x/y/JPEGImages/f", "z/JPEGImages/f", ".hidden/JPEGImages/f", "a/b/c/JPEGImages/f")
    assert list(find_folders(tmp_path, ["JPEGImages"])) == [tmp_path / "z", tmp_path / "x/y"]


def test_archives(tmp_path: Path) -> None:
    _touch(tmp_path, "Train2017.ZIP", "train2017.txt", "val2017.zip", "sub/train2017.tar.gz")
    found = find_archives([tmp_path, tmp_path / "sub", tmp_path / "none"], ["train2017"])
    assert found == [tmp_path / "Train2017.ZIP", tmp_path / "sub/train2017.tar.gz"]


def test_a_cut_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("file", bytes(1000))
    assert archive_is_whole(path)
    path.write_bytes(path.read_bytes()[:-30])
    assert not archive_is_whole(path)


@pytest.mark.parametrize("places", [("DAVIS/DAVIS", "DAVIS"), ("else where/davis", "DAVIS"), ("ADE", "ade/ADE")])
def test_what_is_advised_moves_everything(tmp_path: Path, places: tuple[str, str]) -> None:
    source, target = tmp_path / places[0], tmp_path / places[1]
    _touch(source, "JPEGImages/a b.jpg", "Annotations/c.png")
    subprocess.run(move_command(source, target), shell=True, check=True)
    assert (target / "JPEGImages/a b.jpg").is_file()
    assert (target / "Annotations/c.png").is_file()
    assert not source.exists() or source == target


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    _touch(tmp_path, "DAVIS/DAVIS/list.txt")
    (tmp_path / "DAVIS/list.txt").write_text("kept")
    moved = subprocess.run(
        move_command(tmp_path / "DAVIS/DAVIS", tmp_path / "DAVIS"), shell=True, check=False, capture_output=True
    )
    assert moved.returncode != 0
    assert (tmp_path / "DAVIS/list.txt").read_text() == "kept"
    shutil.rmtree(tmp_path / "DAVIS")


def test_what_is_advised_renames_everything(tmp_path: Path) -> None:
    _touch(tmp_path, "a b/x.1.JPG", "c/y.JPG", "c/z.jpg")
    renamings = [(tmp_path / "a b/x.1.JPG", tmp_path / "a b/x.1.jpg"), (tmp_path / "c/y.JPG", tmp_path / "c/y.jpg")]
    subprocess.run(rename_command(renamings), shell=True, check=True)
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["x.1.jpg", "y.jpg", "z.jpg"]
    assert rename_command(renamings[1:]) == f"mv -n {tmp_path}/c/y.JPG {tmp_path}/c/y.jpg"
    assert rename_command([*renamings, (tmp_path / "d.jpeg", tmp_path / "d.jpg")]).startswith("as in: mv -n ")
