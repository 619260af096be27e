from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from common.command import config_parser, parse_config

EXPECTED = """\
usage: python -m draw --data-folder PATH [OPTION ...]

Draw something.

options:
  -h, --help            Show this text and exit.
  --data-folder PATH    Where. (required)
  --sides SIDES [SIDES ...]
                        Which sides.
  --scale [NUMBER,NUMBER]
                        Smallest and largest. (default: [0.5,1])
  --depths [N,...]      Of each stage. (default: [2,2])
  --colour {red,blue}   Which. (default: red)
  --deep [true|false]   Whether. (default: false)
  --title TITLE         Above; by default none.
  --seed N              By default any.
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Draw something."""

    data_folder: Path
    """Where."""
    sides: list[str] | None = None
    """Which sides."""
    scale: tuple[float, float] = (0.5, 1)
    """Smallest and largest."""
    depths: tuple[int, ...] = (2, 2)
    """Of each stage."""
    colour: Literal["red", "blue"] = "red"
    """Which."""
    deep: bool = False
    """Whether."""
    title: str = ""
    """Above; by default none."""
    seed: int | None = None
    """By default any."""


def test_options_in_words(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        parse_config(Options, "python -m draw", ["--help"])
    assert capsys.readouterr().out == EXPECTED


def test_positional_arguments_and_switches(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    parser = config_parser("python -m draw", "Draw.")
    parser.add_argument("what", type=Path, help="the model")
    parser.add_argument("output", nargs="?", type=Path, help="the file")
    parser.add_argument("--dry-run", action="store_true", help="only tell")
    parser.add_argument("--json", nargs="?", const="-", help="a report")
    parser.print_help()
    text = capsys.readouterr().out
    assert text.startswith("usage: python -m draw WHAT [OUTPUT] [OPTION ...]\n")
    assert "--dry-run      only tell\n" in text
    assert "--json [JSON]  a report\n" in text
    assert "(" not in text
