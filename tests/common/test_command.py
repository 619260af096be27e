"""Command-line manners: typed options, one-line mistakes, exit statuses."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from common.command import parse_config, run_command


@dataclass(kw_only=True)
class Inner:
    """A section."""

    some_rate: float = 0.5
    """A rate."""


@dataclass(kw_only=True)
class Options:
    """Do something."""

    path: Path
    """Where."""
    num_heads: int | None = None
    """How many."""
    inner: Inner = field(default_factory=Inner)
    """More."""
    draw_all: bool = False
    """Whether."""
    folders: list[Path] | None = None
    """Which."""
    taps: list[int] = field(default_factory=list)
    """Where."""

    def __post_init__(self) -> None:
        if self.num_heads == 0:
            raise ValueError("num_heads=0 must be positive")


def test_dashes_and_underscores_are_the_same() -> None:
    expected = Options(path=Path("a-b"), num_heads=3, inner=Inner(some_rate=0.25))
    assert parse_config(Options, "x", ["--path", "a-b", "--num-heads", "3", "--inner.some-rate=0.25"]) == expected
    assert parse_config(Options, "x", ["--path", "a-b", "--num_heads=3", "--inner.some_rate", "0.25"]) == expected


def test_a_list_takes_several_values() -> None:
    expected = [Path("a,b"), Path("c")]
    for arguments in (["--folders", "a,b", "c"], ["--folders", '["a,b","c"]'], ['--folders=["a,b","c"]']):
        assert parse_config(Options, "x", ["--path", "a", *arguments]).folders == expected
        assert parse_config(Options, "x", [*arguments, "--path", "a"]).folders == expected
    assert parse_config(Options, "x", ["--path", "a", "--folders", "2016"]).folders == [Path("2016")]
    assert parse_config(Options, "x", ["--path", "a", "--taps", "3", "5"]).taps == [3, 5]


def test_a_switch_needs_no_value() -> None:
    for arguments in (["--draw-all"], ["--draw-all", "true"], ["--draw-all=true"]):
        assert parse_config(Options, "x", ["--path", "a", *arguments]).draw_all
        assert parse_config(Options, "x", [*arguments, "--path", "a"]).draw_all
    assert not parse_config(Options, "x", ["--path", "a", "--draw-all", "false"]).draw_all


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "^required: --path "),
        (["--path", "x", "--num-headz", "3"], "num"),
        (["--path", "x", "--num", "3"], "--num"),
        (["--path", "x", "--num-heads", "three"], "three"),
        (["--path", "x", "--draw-all", "perhaps"], "perhaps"),
        (["--path", "x", "--num-heads", "0"], "must be positive"),
    ],
)
def test_mistakes_are_value_errors_of_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_config(Options, "x", arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "status", "lines"),
    [(ValueError("first\nsecond"), 2, ["error: first second"]), (FileNotFoundError(2, "gone", "f"), 2, None), (None, 0, [])],
)
def test_exit_statuses(
    error: Exception | None, status: int, lines: list[str] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(argv: object) -> int:
        del argv
        if error is not None:
            raise error
        return 0

    with pytest.raises(SystemExit) as caught:
        run_command(main)
    assert caught.value.code == status
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == (1 if lines is None else len(lines))
    assert lines is None or printed == lines


def test_our_own_mistakes_keep_their_traceback() -> None:
    def main(argv: object) -> int:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run_command(main)


def test_help_shows_the_sentence_under_a_field() -> None:
    code = (
        "import tests.common.test_command as t; from common.command import parse_config; "
        "parse_config(t.Options, 'x', ['--help'])"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0
    assert "How many." in finished.stdout
