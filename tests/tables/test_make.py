import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tables.make import TablesConfig, make_tables, render_all

Write = Callable[..., Path]
NAMES = ["classification", "compatibility", "components", "davis_2016", "main", "upernet"]
PAGES = ["macros.tex", "report.html", "tables.md", "tables.tex"]
FILES = sorted([*(f"{name}{suffix}" for name in NAMES for suffix in (".csv", ".tex")), *PAGES])
REPOSITORY = Path(__file__).resolve().parents[2]


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tables", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def some_results(write: Write) -> None:
    """Several tasks, names and standings."""
    write("b", "davis", coverage="sample")
    write("a", "segmentation", deviations={"z": [1, 2], "a": [True, None]})
    write("a", "davis")
    write("c", "detection", coverage="subset")


@pytest.mark.usefixtures("some_results")
def test_the_same_files_give_the_same_bytes_anywhere(runs: Path, tmp_path: Path) -> None:
    make_tables(TablesConfig(runs=runs, output=tmp_path / "first"))
    moved = tmp_path / "elsewhere" / "moved"
    # Copied in another order, so that the file system lists them differently.
    for path in sorted(runs.rglob("result.json"), reverse=True):
        (moved / path.relative_to(runs)).parent.mkdir(parents=True)
        shutil.copy(path, moved / path.relative_to(runs))
    finished = _run("--runs", str(moved), "--output", str(tmp_path / "second"), PYTHONHASHSEED="5", TZ="Asia/Tokyo")
    assert finished.returncode == 0, finished.stderr
    assert sorted(path.name for path in (tmp_path / "second").iterdir()) == FILES
    for name in FILES:
        content = (tmp_path / "first" / name).read_bytes()
        assert content == (tmp_path / "second" / name).read_bytes()
        assert str(tmp_path).encode() not in content


def test_the_command_prints_what_it_wrote(runs: Path, tmp_path: Path) -> None:
    finished = _run("--runs", str(runs), "--output", str(tmp_path / "out"))
    assert finished.returncode == 0
    assert sorted(Path(line).name for line in finished.stdout.splitlines()) == FILES
    assert "no results below" in finished.stderr


def test_faulty_results_give_their_lines_a_status_and_no_tables(runs: Path, tmp_path: Path, write: Write) -> None:
    write("a", "davis")
    write("a", "davis", folder="again")
    write("b", "davis").write_text("{")
    finished = _run("--runs", str(runs), "--output", str(tmp_path / "out"))
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert not (tmp_path / "out").exists()
    lines = finished.stderr.splitlines()
    assert len(lines) == 3
    assert "b/davis/result.json: not a readable result file" in lines[0]
    assert "a second davis result of 'a'" in lines[1]
    assert lines[2] == "error: 2 problem(s) in the result files; no table was written"


def test_earlier_tables_survive_a_faulty_result(runs: Path, tmp_path: Path, write: Write) -> None:
    config = TablesConfig(runs=runs, output=tmp_path / "out")
    make_tables(config)
    before = {name: (config.output / name).read_bytes() for name in FILES}
    write("b", "davis").write_text("{")
    with pytest.raises(ValueError, match="1 problem"):
        make_tables(config)
    assert {name: (config.output / name).read_bytes() for name in FILES} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "out"], "runs"),
        (["--runs", "missing", "--output", "out"], "error: --runs missing: no such folder"),
        (["--runs", ".", "--output", "out", "--colour", "red"], "--colour"),
    ],
)
def test_wrong_options_are_one_line_and_a_status(arguments: list[str], message: str) -> None:
    finished = _run(*arguments)
    assert finished.returncode == 2
    assert message in finished.stderr
    assert finished.stderr.count("\n") == 1


def test_an_unwritable_output_is_one_line_and_a_status(runs: Path, tmp_path: Path, write: Write) -> None:
    write("a", "davis")
    (tmp_path / "file").write_text("")
    finished = _run("--runs", str(runs), "--output", str(tmp_path / "file" / "out"))
    assert finished.returncode == 2
    assert finished.stderr.startswith("error: ")
    assert finished.stderr.count("\n") == 1


def test_results_need_no_network_library() -> None:
    """The tables run where neither torch nor OpenMMLab is installed, and `--help` does not wait for what the report needs."""
    code = (
        "import sys, tables.__main__; "
        "print(sorted({'torch', 'timm', 'mmengine', 'mmcv', 'numpy', 'jinja2', 'PIL', 'matplotlib'} & set(sys.modules)))"
    )
    finished = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


def test_rendering_twice_is_the_same(runs: Path, write: Write) -> None:
    write("a", "davis")
    assert render_all(runs) == render_all(runs)
