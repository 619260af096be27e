"""Launching: what torchrun and Slurm are asked for, and that processes started so do the work together."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.launch import Command, LaunchOptions, run_or_launch, split_launch_options
from eval.__main__ import main as eval_main
from pretrain.__main__ import main as pretrain_main
from tests.conftest import REPOSITORY


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
    ("arguments", "world_size", "message"),
    [
        ("--gpus 0", None, "gpus=0 must be positive"),
        ("--nodes 2", None, "nodes=2 needs --slurm"),
        ("--slurm --hours 0", None, "hours"),
        ("--slurm --sbatch gpu", None, "KEY=VALUE"),
        ("--slurm --sbatch time=3", None, "--hours"),
        ("--slurm", None, "no `srun`"),
        ("--gpus 2", "2", "inside of torchrun"),
    ],
)
def test_mistakes(arguments: str, world_size: str | None, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    if world_size is not None:
        monkeypatch.setenv("WORLD_SIZE", world_size)
    with pytest.raises(ValueError, match=re.escape(message)):
        run_or_launch("eval", ["davis", *arguments.split()], never)


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
    assert capsys.readouterr().out == "python -m common.launch --standalone --nproc-per-node 2 -m eval davis\n"


SBATCH = """#!/bin/sh
# Stands in for Slurm: accepts a job, whose script is the last argument, and says its number.
for last; do :; done
cp "$last" {folder}/submitted.sh
echo "Submitted batch job 77"
"""

MAIN = """
import torch.distributed as dist
from pathlib import Path
def main(argv):
    dist.init_process_group("gloo")
    Path(argv[0], f"{dist.get_rank()}.txt").write_text(str(dist.get_world_size()))
    dist.barrier()
    dist.destroy_process_group()
"""


def test_a_job_is_submitted_and_its_processes_find_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes of a job, started as srun would start them, join and run the command."""
    programs, package, jobs = (tmp_path / name for name in ("bin", "joined", "jobs"))
    programs.mkdir()
    sbatch = SBATCH.format(folder=tmp_path)
    for name, text in {"sbatch": sbatch, "srun": "#!/bin/sh\n", "scontrol": "#!/bin/sh\necho localhost\n"}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(MAIN)
    assert run_or_launch("joined", [str(tmp_path), "--slurm", "--gpus", "2", "--job-folder", str(jobs)], never) == 0
    assert "#SBATCH --ntasks-per-node=2" in (tmp_path / "submitted.sh").read_text()
    job = {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "2", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "localhost"}
    job |= {"SLURM_NODEID": "0", "SUBMITIT_EXECUTOR": "slurm", "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"}
    command = [sys.executable, "-m", "submitit.core._submit", str(jobs)]
    processes = [
        subprocess.Popen(command, env={**os.environ, **job, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)})
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)] == ["2", "2"]


def test_a_job_continues_with_the_same_command() -> None:
    command = Command(module="eval", arguments=("davis", "--jobs", "2"))
    assert command.checkpoint().function is command
