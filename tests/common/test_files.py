"""Nobody sees half a file, writes where another run does, or leads a name out of its folder."""

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from common.files import (
    check_name,
    file_sha256,
    lock_folder,
    parse_json,
    remove_leftovers,
    text_sha256,
    write_atomically,
    write_text_atomically,
)
from tests.conftest import REPOSITORY


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
    remove_leftovers(path.parent, ".file.*.tmp.*")
    assert sorted(file.name for file in path.parent.iterdir()) == [".other.77.tmp.txt", "file.txt"]
    remove_leftovers(path.parent)
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]


def test_digests(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_text("abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(path) == text_sha256("abc") == expected


def test_a_full_disk_names_the_file_also_behind_torchs_complaint(tmp_path: Path) -> None:
    def fill(_: Path) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 64 vs 0")

    def fill_at_once(_: Path) -> None:
        raise RuntimeError("basic_ios::clear: iostream error")

    for write, message in ((fill, "No space left on device"), (fill_at_once, "the disk is full, or fails")):
        with pytest.raises(OSError, match=rf"{message}: '.*file.pth'"):
            write_atomically(tmp_path / "file.pth", write)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        *("../x", "/abs", "a/b", "..", ".hidden", "a\\b", "a\nb", "a\x1b[2J", "", "=1+1", "-x", "@x"),
        *("\uff1d1", " a", "a ", "\u00e9" * 101, "x" * 201),
    ],
)
def test_a_name_stays_in_its_folder_on_its_line_and_out_of_formulas(name: str) -> None:
    with pytest.raises(ValueError, match=r"--name .* without slashes and not beginning with"):
        check_name(name, "--name")


def test_a_nested_name_stays_below_its_folder() -> None:
    assert check_name("train/cat 1/0001.jpg", "file_name", nested=True) == "train/cat 1/0001.jpg"
    assert check_name("[abl] *1", "--name") == "[abl] *1"
    for name in ("../x.jpg", "a/../../x.jpg", "/etc/x.jpg", "a//x.jpg", "a/.x.jpg"):
        with pytest.raises(ValueError, match=r"file_name .* a path below its folder"):
            check_name(name, "file_name", nested=True)


def test_a_folder_has_one_writer_and_its_death_frees_it(tmp_path: Path) -> None:
    hold = "with lock_folder(Path(sys.argv[1])): print('held', flush=True); time.sleep(99)"
    code = f"import sys, time; from common.files import *\n{hold}"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match=rf"is in use by process {holder.pid} on .* since 20\d\d-"), lock_folder(tmp_path):
            pass
        threading.Timer(0.3, holder.kill).start()
        with lock_folder(tmp_path, patience=60):
            assert f"process {os.getpid()} on " in (tmp_path / ".lock").read_text()


def test_who_holds_a_folder_is_named_from_the_first_moment(tmp_path: Path) -> None:
    """A second start in the milliseconds between the lock and its holder's line was told of "another process"."""
    with FileLock(tmp_path / ".lock"):
        threading.Timer(0.3, (tmp_path / ".lock").write_text, ["process 7 on a since 2026\n"]).start()
        with pytest.raises(ValueError, match="is in use by process 7 on a since 2026; wait"), lock_folder(tmp_path):
            pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_and_used(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A lock of filelock's own kind was left there by a killed run, and refused all later ones."""

    def refuse(*_: int) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr("fcntl.flock", refuse)
    for _ in range(2):
        with lock_folder(tmp_path):
            assert f"process {os.getpid()} on " in (tmp_path / ".lock").read_text()
    assert f"{tmp_path}: its file system has no locks" in caplog.text


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "9" * 4000, str(2**64), str(-(2**63) - 1), "1e999", "NaN", "-Infinity", "{", "\x00", '{"a": 1, "a": 2}'],
)
def test_json_that_no_result_holds_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"nested too deeply|no number of 64 bits|there twice|line 1 column|Expecting"):
        parse_json(text)
    assert parse_json('{"a": [1, -2.5e-3, null, true]}') == {"a": [1, -2.5e-3, None, True]}


def test_every_number_that_python_numpy_or_an_exact_printer_writes_is_read() -> None:
    exact = "0.1000000000000000055511151231257827021181583404541015625"  # all digits of 0.1
    whole = [2**64 - 1, -(2**63), int(np.iinfo(np.uint64).max), 0]
    real = [sys.float_info.max, -sys.float_info.min, 5e-324, float(np.float32(0.1)), 1 / 3, -0.0]
    assert parse_json(f"[{exact}, {exact}e-3, 1{'0' * 300}.0]") == [0.1, 0.0001, 1e300]
    assert parse_json(json.dumps(whole + real)) == whole + real


@pytest.mark.parametrize("name", ["folder", "pipe", "link", "/dev/null", "/dev/patchbench"])
def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path, name: str) -> None:
    """Root would otherwise turn `/dev/stdout` or `/dev/full` into a file."""
    path = tmp_path / name
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/full")
    with pytest.raises(FileExistsError, match=rf"folder, pipe or device of that name; give that of a file: '{path}'"):
        write_text_atomically(path, "text")
    assert not path.is_file()
