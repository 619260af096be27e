"""Launching: what torchrun and Slurm are asked for. Tests of pretraining start processes so, and a job that is queued again."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from common.launch import LaunchOptions, loader_processes, run_or_launch, split_launch_options, usable_cores
from eval.__main__ import main as eval_main
from pretrain.__main__ import main as pretrain_main


def never(argv: object) -> int:
    raise AssertionError(f"ran here: {argv}")


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (pretrain_main, "sample_selfpach --gpus 2", "sample_selfpach"),
        (pretrain_main, "sample_selfpatch --train.epoch 3 --slurm", "train.epoch"),
        (eval_main, "davis --backbone b --data d --outputt o --slurm", "outputt"),
    ],
)
def test_a_mistake_is_found_before_a_job_is_printed(main: Any, arguments: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        main([*arguments.split(), "--dry-run"])


def test_launch_options_are_taken_out() -> None:
    command = "davis --gpus 4 --data d --slurm --sbatch partition=a qos=b --cpus-per-gpu=3 --job_folder f --jobs 2"
    options, rest = split_launch_options(command.split())
    assert rest == ["davis", "--data", "d", "--jobs", "2"]
    sbatch = ["partition=a", "qos=b"]
    assert options == LaunchOptions(gpus=4, slurm=True, sbatch=sbatch, cpus_per_gpu=3, job_folder=Path("f"))
    assert run_or_launch("eval", rest, len) == 5  # without launch options, a command runs here


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--gpus 0", "gpus=0 must be positive"),
        ("--nodes 2", "nodes=2 needs --slurm"),
        ("--slurm --hours 0", "hours"),
        ("--slurm --sbatch gpu", "KEY=VALUE"),
        ("--slurm --sbatch time=3", "--hours"),
        ("--slurm --sbatch a=b\n#SBATCH", "control characters could add lines"),
        ("--slurm", "no `srun`"),
        ("--gpus 2", "inside of torchrun"),
    ],
)
def test_mistakes(arguments: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=re.escape(message)):
        run_or_launch("eval", ["davis", *arguments.split(" ")], never)


def test_the_dry_run_prints_the_job_or_torchrun(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    options = "--slurm --nodes 2 --gpus 4 --hours 1.5 --sbatch account=x --dry-run"
    assert run_or_launch("eval", ["detection", "--output", "a b", *options.split()], never) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# each of 8 processes: python -m eval detection --output 'a b'\n")
    sizes = "nodes=2 ntasks-per-node=4 gpus-per-node=4 time=90 account=x job-name=patchbench-eval requeue signal=USR2@120"
    for line in sizes.split():
        assert f"#SBATCH --{line}\n" in printed
    assert run_or_launch("eval", ["davis", "--gpus", "2", "--dry-run"], never) == 0
    monkeypatch.setenv("WORLD_SIZE", "2")  # left over from another job
    assert run_or_launch("eval", ["davis", "--dry-run"], never) == 0
    shown = [f"python -m common.launch --standalone --nproc-per-node {count} -m eval davis\n" for count in (2, 1)]
    assert capsys.readouterr().out == "".join(shown)


def test_there_are_no_more_loading_processes_than_cores_and_batches_fit_the_shared_memory() -> None:
    """Loaders hung in containers whose /dev/shm has 64 MiB."""
    assert loader_processes(0, 2**60, "--workers") == 0
    assert loader_processes(10_000, 1, "--workers") == usable_cores()
    with pytest.raises(ValueError, match=r"--workers 1: 1 loading processes need \d+ MiB .* --workers 0, .*--shm-size"):
        loader_processes(1, 2**60, "--workers")


def test_the_processes_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.launch.usable_cores", lambda: 9)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert loader_processes(8, 1, "--workers") == 2
    size = shutil.disk_usage("/dev/shm").total
    assert loader_processes(1, size // 16, "--workers") == 1
    with pytest.raises(ValueError, match=rf"--workers 1: 4 loading processes need {size >> 19} MiB"):
        loader_processes(1, size // 4, "--workers")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert loader_processes(8, 1, "--workers") == 1
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "9")
    assert loader_processes(8, 1, "--workers") == 8
