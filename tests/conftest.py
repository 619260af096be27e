"""Fixtures for all tests: the folders with recorded and with real data, and commands that run in this process."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from common.cli import run_command

REPOSITORY = Path(__file__).resolve().parent.parent


def _data_folder(variable: str, default: str) -> Path:
    folder = Path(os.environ.get(variable, REPOSITORY / default))
    if not folder.is_dir():
        pytest.skip(f"no {variable}: {folder} does not exist")
    return folder


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Recorded outputs of the reference implementations."""
    return _data_folder("GOLDEN_DIR", "../shared/golden")


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    """Small subsets of the public datasets."""
    return _data_folder("REAL_DATA_DIR", "../shared/data")


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
