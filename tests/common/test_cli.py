"""The command line: typed options, one-line mistakes, exit statuses, stopping on request."""

import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from unittest.mock import Mock

import pytest
import tyro

from common import SPEAKER
from common.cli import STOP_SIGNALS, Interrupted, StopRequest, as_arguments, as_typed, leave_stopping_to_parent, parse
from common.files import one_line
from tests.conftest import REPOSITORY, RunMain


@dataclass(kw_only=True)
class Inner:
    """A section."""

    some_rate: float = 0.5
    scale: tuple[float, float] = (0.5, 1.0)

    def __post_init__(self) -> None:
        if self.some_rate < 0:
            raise ValueError(f"some_rate={self.some_rate} is negative")


@dataclass(kw_only=True)
class Options:
    """Do something."""

    path: Path
    num_heads: int | None = None
    """How many."""
    inner: Inner = field(default_factory=Inner)
    draw_all: bool = False
    folders: list[Path] | None = None
    taps: list[int] = field(default_factory=list)
    colour: Literal["red", "blue"] = "red"

    def __post_init__(self) -> None:
        if self.num_heads == 0:
            raise ValueError("num_heads=0 must be positive")


@dataclass(kw_only=True)
class Named:
    """Do something with a file."""

    file: tyro.conf.Positional[Path]
    quick: bool = False


def options(*arguments: str) -> Options:
    return parse(Options, ["--path", "a", *arguments], "x")


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        ("--num-heads 3 --inner.some-rate=0.25", {"num_heads": 3, "inner": Inner(some_rate=0.25)}),
        ("--num_heads=3 --inner.some_rate 0.25", {"num_heads": 3, "inner": Inner(some_rate=0.25)}),
        ("--path x-y_z", {"path": Path("x-y_z")}),
        ("--path=--x", {"path": Path("--x")}),
        ("--path -x", {"path": Path("-x")}),
        # The later value wins.
        ("--taps 1 2 --num-heads 3 --num_heads 4 --taps 5", {"num_heads": 4, "taps": [5]}),
        ("--num-heads 3 --num-heads null", {}),
        ("--folders a,b c --taps -3 5", {"folders": [Path("a,b"), Path("c")], "taps": [-3, 5]}),
        ('--folders ["a,b","c"] --taps=[3,-5]', {"folders": [Path("a,b"), Path("c")], "taps": [3, -5]}),
        ("--folders=['a,b',c] --taps []", {"folders": [Path("a,b"), Path("c")]}),
        ("--folders 2016", {"folders": [Path("2016")]}),
        ("--inner.scale 0.1 1e-3", {"inner": Inner(scale=(0.1, 1e-3))}),
        ("--inner.scale [0.1,1e-3]", {"inner": Inner(scale=(0.1, 1e-3))}),
        *((f"--draw-all{value}", {"draw_all": True}) for value in ("", " true", "=True")),
        ("--draw-all --taps 1", {"draw_all": True, "taps": [1]}),
        ("--draw-all --draw-all false", {}),
    ],
)
def test_what_arguments_mean(arguments: str, changes: dict[str, Any]) -> None:
    assert options(*arguments.split()) == Options(**({"path": Path("a")} | changes))


def test_positional_and_required_arguments() -> None:
    for arguments in (["f"], ["f", "--quick"], ["--quick", "f"], ["--quick", "true", "f"]):
        assert parse(Named, arguments, "x") == Named(file=Path("f"), quick=len(arguments) > 1)
    for argv, message in (([], "Missing from x: PATH"), (["f", "g"], "Unrecognized options: g")):
        with pytest.raises(ValueError, match=message):
            parse(Named, argv, "x")
    with pytest.raises(ValueError, match=r"^required: --path \(see `x --help`\)$"):
        parse(Options, ["--taps", "3"], "x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-headz", "3"], r"^unknown option --num-headz, did you mean --num-heads\? \(see `x --help`\)$"),
        (["--num", "3"], "^unknown option --num,"),
        (["--path", ""], r"^--path is empty: a path is needed \(see `x --help`\)$"),
        (["--path="], "^--path is empty: a path is needed"),
        (["--path", "null"], "^--path null: a path is needed"),
        (["--num-heads", "three"], r"^--num-heads: .*INT.*'three'.* \(see `x --help`\)$"),
        (["--taps", "1", "b"], "^--taps: .*'b'"),
        (["--taps", "[1"], r"^--taps \[1: not a list; write values with spaces"),
        (["--inner.scale", "1"], r"'--inner.scale'. Expected 2 values"),
        (["--colour", "green"], r"'green' for argument '--colour'. Expected one of \('red', 'blue'\)"),
        (["--draw-all", "perhaps"], r"'perhaps' for argument '--draw-all'. Expected one of \('True', 'False'\)"),
        (["stray"], "stray"),
        (["--path"], "^Missing value for argument '--path'"),
        (["--num-heads", "0"], "^num_heads=0 must be positive$"),
        (["--inner.some-rate", "-1"], r"^some_rate=-1.0 is negative$"),
        (["--colour", " ".join(["green"] * 60)], "green green"),
    ],
)
def test_mistakes_are_value_errors_of_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        options(*arguments)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr() == ("", "")


def test_values_of_a_file_as_arguments() -> None:
    values = {"path": "a", "inner": {"some_rate": 1e-3, "scale": [0.1, 1]}, "num_heads": None, "draw_all": True, "taps": [1]}
    expected = Options(path=Path("a"), inner=Inner(some_rate=1e-3, scale=(0.1, 1)), draw_all=True, taps=[1])
    assert parse(Options, as_arguments(values), "x") == expected
    assert parse(Options, [*as_arguments(values), "--inner.some-rate", "2"], "x").inner.some_rate == 2
    assert parse(Options, as_arguments({"path": "--num-heads"}), "x") == Options(path=Path("--num-heads"))


def test_help_shows_the_sentence_under_a_field(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse(Options, ["--num-headz", "--help"], "python -m x")
    shown = capsys.readouterr().out
    for text in ("usage: python -m x", "Do something.", "--num-heads", "How many.", "--inner.some-rate", "{True,False}"):
        assert text in shown


@pytest.mark.parametrize(
    ("error", "status", "printed"),
    [
        (ValueError("first\nsecond"), 2, "error: first second\n"),
        (FileNotFoundError(2, "gone", "f"), 2, "error: cannot use f: gone\n"),
        (KeyboardInterrupt(), 130, "interrupted; the same command line continues\n"),
        *((Interrupted(number), 128 + number, "") for number in STOP_SIGNALS),
    ],
)
def test_exit_statuses(run_main: RunMain, error: BaseException, status: int, printed: str) -> None:
    assert run_main(Mock(side_effect=error), []) == (status, "", printed)


@pytest.mark.parametrize(("speaker", "printed"), [(None, "interrupted; the same command line continues\n"), ("1", "")])
def test_ctrl_c_while_modules_are_loaded(speaker: str | None, printed: str) -> None:
    """Loading torch takes seconds. What another command has started leaves it to that one to say so."""
    environment = {name: value for name, value in os.environ.items() if name != SPEAKER}
    if speaker is not None:
        environment[SPEAKER] = speaker
    # Python's own handler, which it leaves out where a shell has started the tests in the background.
    handler = "signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"import common, os, signal; {handler}; os.kill(os.getpid(), signal.SIGINT)"
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (-signal.SIGINT, "", printed)


def test_our_own_mistakes_keep_their_traceback(run_main: RunMain) -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        run_main(Mock(side_effect=RuntimeError("a bug")), [])
    assert run_main(Mock(return_value=None), []) == (0, "", "")


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_first_signal_is_remembered_and_its_handler_comes_back(number: signal.Signals) -> None:
    """Slurm sends several one after the other, and torchrun repeats them."""
    seen = Mock()
    before = signal.signal(number, seen)
    try:
        with StopRequest() as stop:
            assert stop.signum == 0
            for sent in (number, *STOP_SIGNALS):
                signal.raise_signal(sent)
            assert stop.signum == number
            seen.assert_not_called()
        signal.raise_signal(number)
        seen.assert_called_once()
    finally:
        signal.signal(number, before)


def test_workers_survive_a_signal_to_the_group() -> None:
    child = os.fork()
    if child == 0:
        leave_stopping_to_parent()
        for number in STOP_SIGNALS:
            os.kill(os.getpid(), number)
        os._exit(7)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7


def test_a_message_has_one_line_without_control_characters_and_is_cut() -> None:
    assert one_line("a\n b\x1b[2J\u2028c") == "a b [2J c"
    assert one_line("x" * 5000 + " do that").endswith("x do that")
    assert len(one_line("x" * 5000)) <= 700


def test_a_home_folder_is_found_where_no_shell_has_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for argv in (["~/a.pth", "--quick"], ["--quick", "true", "~/a.pth"], ["--quick", "~/a.pth"]):
        assert parse(Named, argv, "command") == Named(file=Path("/home/me/a.pth"), quick=True)
    with pytest.raises(ValueError, match=r"^~nobody-of-this-name/a: no such home folder"):
        parse(Named, ["~nobody-of-this-name/a"], "command")


def test_advice_has_the_options_of_the_command_that_was_typed() -> None:
    text = "choose another --output; frames do not fit (--protocol fixed), a-b--c, see `--help`, docker run --shm-size"
    typed = "choose another --name; frames do not fit (--davis.protocol fixed), a-b--c, see `--help`, docker run --shm-size"
    assert as_typed(text, "davis") == typed
    assert as_typed(text, "") == text


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_leaves_changes_nothing(lines: int, tmp_path: Path) -> None:
    """The work goes on and the status is its own."""
    code = "import sys; from common.cli import run_command; from pathlib import Path\ndef main(argv):\n"
    code += f"  for _ in range({lines}): print('line'); print('line', file=sys.stderr)\n"
    code += f"  Path({str(tmp_path / 'done')!r}).touch(); return 3\nrun_command(main)"
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} 2>&1 | head -n 1; exit ${{PIPESTATUS[0]}}"
    finished = subprocess.run(["bash", "-c", command], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout, finished.stderr) == (3, "line\n", "")
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize(
    ("outputs", "status", "message"),
    [
        ("2>&-", 3, ""),
        (">&- 2>&-", 3, ""),
        ("<&- >&-", 3, ""),
        (">/dev/full", 2, "error: cannot use standard output: No space"),
    ],
)
def test_closed_and_full_outputs(outputs: str, status: int, message: str, tmp_path: Path) -> None:
    """No file that the work opens takes the place of a closed output."""
    code = "import sys; from common.cli import run_command\nfrom pathlib import Path\ndef main(argv):\n"
    code += f"  stream = open({str(tmp_path / 'done')!r}, 'w')\n  print('line', file=sys.stderr) if {not message} else None\n"
    code += "  print('line'); stream.write('done'); stream.close(); return 3\nrun_command(main)"
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} {outputs}"
    finished = subprocess.run(["bash", "-c", command], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert finished.returncode == status
    assert finished.stderr.startswith(message)
    assert "Traceback" not in finished.stderr
    assert message or (tmp_path / "done").read_text() == "done"


def test_a_log_line_changes_nothing_on_the_terminal() -> None:
    program = r"import logging; from common.cli import *; set_up_process(); logging.warning('%s', 'a\x1b[31m\n\u202eb\ud800')"
    logged = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True).stderr
    assert logged.endswith(" root: a [31m b\n")
    assert logged.count("\n") == 1
