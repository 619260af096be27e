"""The command, end to end at toy size: two rows, a failure in between, a kill, and the estimate."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pretrain.state import CHECKPOINT_FILE
from tests.conftest import REPOSITORY, RunMain
from tools.ablation import main
from tools.ablation_runner import run

EPOCHS = 6
SHORTEST = [
    *("--pretraining", f"train.epochs={EPOCHS}", "backbone.depth=2", "views.local_crops=1", "data.workers=0"),
    *("--evaluation", "jobs=1"),
]
DINO, AVERAGE = "coco_dino_vit_tiny-deviating", "coco_selfpatch_vit_tiny_average-deviating"


def arguments(data: Path, folder: Path, *others: object) -> list[object]:
    places = ["--data", data, "--runs", folder / "runs", "--output", folder / "results"]
    return ["components", "--scale", "tiny", *places, *others, *SHORTEST]


def test_a_failed_job_is_named_at_the_end_and_the_others_run(
    ablation_data: Path, tmp_path: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def fail_first(command: list[str]) -> "subprocess.Popen[bytes]":
        started.append(command[command.index("--name") + 1])
        return Popen([sys.executable, "-c", f"raise SystemExit({3 if len(started) == 1 else 0})"])

    Popen = subprocess.Popen
    monkeypatch.setattr(run.subprocess, "Popen", fail_first)
    (tmp_path / "runs").mkdir()
    finished = run_main(main, arguments(ablation_data, tmp_path, "--only", "a", "b-all", "d-off"))
    assert finished.status == 1
    assert started == [DINO, "coco_selfpatch_vit_tiny_all-deviating", AVERAGE]
    assert finished.stdout.splitlines()[-1] == f"failed with status 3: {DINO}; the same command tries it again"


def start_and_kill(command: list[object], checkpoint: Path, log: Path) -> None:
    """Kill the command and its job (SIGKILL) as soon as there is a checkpoint, which is after the first epoch."""
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "tools/ablation.py", *map(str, command)],
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    end = time.monotonic() + 300
    while not checkpoint.exists():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "ended before it could be killed"


@pytest.mark.slow
def test_two_rows_killed_in_the_first_then_the_same_command_fills_the_table(
    ablation_data: Path, tmp_path: Path, run_main: RunMain
) -> None:
    command = arguments(ablation_data, tmp_path, "--only", "a", "d-off")
    runs = tmp_path / "runs"
    start_and_kill(command, runs / DINO / CHECKPOINT_FILE, tmp_path / "log")
    assert not (runs / DINO / "davis" / "result.json").exists()
    begun = run_main(main, [*command, "--dry-run", "--images-per-second", "1"])
    assert [line.split()[2] for line in begun.stdout.splitlines()[2:4]] == ["begun", "new"]

    finished = run_main(main, command)
    assert finished.status == 0, finished.stderr
    steps = [json.loads(line)["step"] for line in (runs / DINO / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 2 * EPOCHS + 1)), "each step once"
    result = runs / AVERAGE / "davis" / "result.json"
    figure = json.loads(result.read_text())["metrics"]["J&F-Mean"]["value"]
    with (tmp_path / "results" / "ablation_components.csv").open() as stream:
        rows = {row["row"]: row for row in csv.DictReader(stream)}
    assert list(rows) == ["a", "b-3x3", "b-5x5", "b-all", "c-k1", "c-k2", "c-k4", "c-k8", "d-off", "d-on"]
    assert [name for name, row in rows.items() if row["measured"]] == ["a", "d-off"]
    off = rows["d-off"]
    assert (off["published"], float(off["measured"]), off["runs"]) == ("51.4", figure, AVERAGE)
    assert off["evaluation"] == "[sample]"
    assert f"train.epochs 200 -> {EPOCHS}" in off["pretraining"]
    assert rows["b-all"]["pretraining"] == "not measured"
    assert f"d-off  {AVERAGE}" in finished.stdout
    assert AVERAGE in (tmp_path / "results" / "components.csv").read_text()

    stamps = {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()}
    again = run_main(main, [*command[:1], "--report-only", *command[1:]])
    assert again.status == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()} == stamps
    assert again.stdout == finished.stdout


def test_the_dry_run_lists_jobs_and_their_cost_and_starts_nothing(
    ablation_data: Path, tmp_path: Path, run_main: RunMain
) -> None:
    command = arguments(ablation_data, tmp_path, "--only", "a", "d-off", "--dry-run", "--images-per-second", "0.025")
    finished = run_main(main, command)
    assert finished.status == 0, finished.stderr
    dino, average, left = (line.split() for line in finished.stdout.splitlines()[2:5])
    # 16 photographs make 2 steps of 8 images; 96 images in 6 epochs are 3840 s at 0.025 images per second.
    assert dino[:6] == [DINO, "a", "new", "6", "12", "96"]
    assert dino[-4:] == ["1", "h", "04", "min"]
    assert average[:3] == [AVERAGE, "d-off", "new"]
    assert left[:5] == ["left", "to", "do", "2", "jobs"]
    assert f"0.025 images/s of {DINO} as given" in finished.stdout
    assert f"python -m tools.ablation_runner --name {DINO} --recipe coco_dino_vit_tiny" in finished.stdout
    assert not list(tmp_path.iterdir())


def test_a_report_alone_starts_nothing(
    ablation_data: Path, tmp_path: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_run", None)
    (tmp_path / "runs").mkdir()
    finished = run_main(main, arguments(ablation_data, tmp_path, "--only", "a", "--report-only"))
    assert finished.status == 0, finished.stderr
    assert (tmp_path / "results" / "ablation_components.csv").is_file()
    assert "not measured" in finished.stdout


def test_jobs_for_slurm(ablation_data: Path, tmp_path: Path, run_main: RunMain) -> None:
    slurm = [
        "--slurm",
        "--only",
        "a",
        "--gpus",
        "4",
        "--hours",
        "2",
        "--sbatch",
        "qos=low",
        "--dry-run",
        "--images-per-second",
        "1",
    ]
    finished = run_main(main, arguments(ablation_data, tmp_path, *slurm))
    assert finished.status == 0, finished.stderr
    assert f"# each of 4 processes: python -m tools.ablation_runner --name {DINO}" in finished.stdout
    assert "#SBATCH --qos=low" in finished.stdout
    assert "#SBATCH --time=120" in finished.stdout
