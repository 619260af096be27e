"""Fixtures for all tests: the folders with recorded and with real data, and commands that run in this process."""

import os
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from filelock import FileLock

from common.cli import run_command

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def golden_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recorded outputs of the reference implementations: the folder `$GOLDEN_DIR`, or what tests/golden holds, unpacked once."""
    if "GOLDEN_DIR" in os.environ:
        folder = Path(os.environ["GOLDEN_DIR"])
        assert folder.is_dir(), f"GOLDEN_DIR={folder} is not a folder"
        return folder
    shared_by_workers = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared_by_workers = shared_by_workers.parent
    folder = shared_by_workers / "golden"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            unfinished = folder.with_suffix(".unfinished")
            for path in sorted((REPOSITORY / "tests/golden").glob("*.tar.xz")):
                with tarfile.open(path) as archive:
                    archive.extractall(unfinished, filter="data")
            unfinished.rename(folder)
    return folder


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    """Small subsets of the public datasets."""
    folder = Path(os.environ.get("REAL_DATA_DIR", REPOSITORY / "../shared/data"))
    if not folder.is_dir():
        pytest.skip(f"no REAL_DATA_DIR: {folder} does not exist")
    return folder


class Finished(NamedTuple):
    """A command that ran in this process."""

    status: int
    stdout: str
    stderr: str
    """Without log lines, which pytest keeps."""

    def output(self) -> str:
        """The standard output of a command that must have succeeded."""
        assert self.status == 0, self
        return self.stdout

    def mistake(self) -> str:
        """The one line that must tell the user of a mistake."""
        assert self.status == 2, self
        (line,) = self.stderr.splitlines()
        return line


RunMain = Callable[[Callable[[Sequence[str]], int | None], Sequence[object]], Finished]


@pytest.fixture
def run_main(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> RunMain:
    """Run a command's `main` as its entry point does, without the seconds that a new process spends on imports."""

    def run(main: Callable[[Sequence[str]], int | None], arguments: Sequence[object]) -> Finished:
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            run_command(main)
        printed = capsys.readouterr()
        return Finished(int(caught.value.code or 0), printed.out, printed.err)

    return run
