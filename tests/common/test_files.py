"""Nobody sees half a file."""

from pathlib import Path

import pytest

from common.files import file_sha256, remove_leftovers, text_sha256, write_atomically, write_text_atomically


def test_a_failed_write_leaves_the_previous_content(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_text_atomically(path, "first")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "first"
    for name in (".file.77.tmp.txt", ".other.77.tmp.txt"):  # of killed writers
        (path.parent / name).touch()
    remove_leftovers(path)
    assert sorted(file.name for file in path.parent.iterdir()) == [".other.77.tmp.txt", "file.txt"]


def test_digests(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_text("abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(path) == text_sha256("abc") == expected
