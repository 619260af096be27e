"""`python -m tables` and `python -m tables check`."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tables.__main__ import main
from tables.make import TablesConfig, make_tables
from tests.conftest import REPOSITORY, RunMain
from tests.tables.conftest import WriteResult
from tests.tables.report.conftest import write_run

NAMES = ["classification", "compatibility", "components", "davis_2016", "frozen", "main", "upernet"]
PAGES = ["macros.tex", "report.html", "results.jsonl", "summary.md", "tables.md", "tables.tex"]
FILES = sorted([*(f"{name}{suffix}" for name in NAMES for suffix in (".csv", "_full.csv", ".tex")), *PAGES])
PASSED = "nothing keeps them from being compared"


def test_the_same_files_give_the_same_bytes_anywhere(runs: Path, tmp_path: Path, write: WriteResult) -> None:
    write("b", "davis", coverage="sample")
    write("a", "segmentation", deviations={"z": [1, 2], "a": [True, None]})
    write_run(runs, "c", "detection", 1, coverage="subset")
    write_run(runs, "c", "davis", 1)
    make_tables(TablesConfig(runs=runs, output=tmp_path / "first"))
    moved = tmp_path / "elsewhere" / "moved"
    # Copied in another order, so that the file system lists them differently.
    for folder in sorted((path.parent for path in runs.rglob("result.json")), reverse=True):
        shutil.copytree(folder, moved / folder.relative_to(runs))
    command = [sys.executable, "-m", "tables", "--runs", str(moved), "--output", str(tmp_path / "second")]
    environment = {**os.environ, "PYTHONHASHSEED": "5", "TZ": "Asia/Tokyo"}
    finished = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert sorted(Path(line).name for line in finished.stdout.splitlines()) == FILES
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / name).glob("[!.]*")} for name in ("first", "second"))
    assert sorted(first) == FILES
    assert first == second
    assert [name for name, content in first.items() if str(tmp_path).encode() in content] == []


def test_faulty_results_give_their_lines_a_status_and_leave_earlier_tables(
    run_main: RunMain, runs: Path, tmp_path: Path, write: WriteResult, caplog: pytest.LogCaptureFixture
) -> None:
    config = TablesConfig(runs=runs, output=tmp_path / "out")
    make_tables(config)
    assert "no results below" in caplog.text
    before = {name: (config.output / name).read_bytes() for name in FILES}
    caplog.clear()
    write("a", "davis")
    write("a", "davis", folder="again")
    path = write("b", "davis")
    path.write_bytes(path.read_bytes()[:40])
    finished = run_main(main, ["--runs", runs, "--output", config.output])
    assert (finished.status, finished.stdout) == (2, "")
    first, second = caplog.messages[:2]
    assert "b/davis/result.json: not a readable result file" in first
    assert "a second davis result of 'a'" in second
    assert finished.stderr.endswith("error: 2 problem(s) in the result files; no table was written\n")
    assert {name: (config.output / name).read_bytes() for name in FILES} == before
    assert run_main(main, ["check", "--runs", runs]).status == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--output out", "required: --runs"),
        ("--runs missing --output out", "--runs missing: no such folder"),
        ("--runs runs --output out --colour red", "--colour"),
        ("--runs runs --output out --max-picture-mb -1", "max_picture_mb=-1.0 must be at least 0"),
        ("--runs runs --output out --first nobody", "--first nobody: no run has this name; there are a"),
        ("--runs runs --output file/out", "file"),
        ("check --runs runs --names nobody", "--names nobody: no run has this name; there are a"),
        ("check --runs runs --allow colour", "--allow colour: fields are heads and what begins with prot"),
    ],
)
def test_mistakes_are_one_line(
    run_main: RunMain, tmp_path: Path, write: WriteResult, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write("a", "davis")
    (tmp_path / "file").write_text("")
    assert message in run_main(main, arguments.split()).mistake()


Check = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def check(run_main: RunMain, runs: Path) -> Check:
    """Status and lines of `python -m tables check`."""

    def run(*options: str) -> tuple[int, list[str]]:
        finished = run_main(main, ["check", "--runs", runs, *options])
        assert finished.stderr == ""
        return finished.status, finished.stdout.splitlines()

    return run


@pytest.mark.parametrize(
    ("task", "options", "field", "second", "first"),
    [
        ("davis", {"version": 2}, "protocol.version", "2", "1"),
        ("davis", {"listing": "f" * 64}, "dataset.test.listing_sha256", "f" * 64, "0" * 64),
        ("detection", {"deviations": {"taps": [[3], [2]]}}, "settings.taps", "[2]", "as published"),
        ("detection", {"settings": {"num_heads": 8}}, "heads", "8 instead of 3", "as pretrained"),
    ],
)
def test_a_difference_is_named_and_can_be_allowed(
    check: Check, write: WriteResult, task: str, options: dict[str, Any], field: str, second: str, first: str
) -> None:
    write("a", task)
    write("b", task, **options)
    benchmark = {"davis": "davis", "detection": "coco"}[task]
    line = f"{benchmark}: b/{task}/result.json has {field} {second}, a/{task}/result.json has {first}"
    assert check() == (2, [line])
    for name in (field, field.rpartition(".")[0] or field):
        assert check("--allow", name) == (0, [f"2 results; {PASSED}"])
    assert check("--names", "a") == (0, [f"1 results; {PASSED}"])


def test_a_row_with_different_coverage_or_heads_is_named(check: Check, write: WriteResult) -> None:
    write("a", "davis")
    write("a", "detection", settings={"num_heads": 8})
    write("a", "segmentation", coverage="sample")
    lines = [
        "row of a: a/detection/result.json has heads 8 instead of 3, a/davis/result.json has as pretrained",
        "row of a: a/segmentation/result.json has dataset.test.coverage sample, a/davis/result.json has full",
    ]
    assert check() == (2, lines)
    assert check("--allow", "heads", "dataset.test.coverage")[0] == 0


def test_the_settings_of_a_classifier_affect_its_metrics_alone(check: Check, write: WriteResult) -> None:
    write("a", "classification")
    write("like a", "classification")
    assert check() == (0, [f"2 results; {PASSED}"])
    write("b", "classification", deviations={"epochs": [100, 1]})
    write("c", "classification", deviations={"temperature": [0.07, 0.1]})
    assert [line.partition(" has ")[0] for line in check()[1]] == [
        "linear CIFAR-10 test: b/classification/result.json",
        "knn CIFAR-10 test: c/classification/result.json",
    ]


def test_the_items_are_tested_once_and_a_mistake_leaves_no_folder(
    runs: Path, write: WriteResult, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write("one", "davis")
    output = tmp_path / "new"
    with pytest.raises(ValueError, match="--first two: no run has this name; there are one"):
        make_tables(TablesConfig(runs=runs, output=output, first="two"))
    assert not output.exists()
    caplog.set_level("INFO")
    make_tables(TablesConfig(runs=runs, output=output))
    assert sum("testing the first run" in message for message in caplog.messages) == 1
