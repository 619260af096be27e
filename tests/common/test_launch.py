"""Launching: what torchrun and Slurm are asked for, and that processes started so do the work together."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.launch import Command, LaunchOptions, run_or_launch, split_launch_options
from eval.__main__ import main as eval_main
from pretrain.__main__ import main as pretrain_main

REPOSITORY = Path(__file__).resolve().parents[2]


def never(argv: object) -> int:
    raise AssertionError(f"ran here: {argv}")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([pretrain_main, "sample_selfpach"], "sample_selfpach"),
        ([pretrain_main, "sample_selfpatch", "--train.epoch", "3"], "train.epoch"),
        ([eval_main, "davis", "--backbone", "b", "--data", "d", "--outputt", "o"], "outputt"),
    ],
)
@pytest.mark.parametrize("where", [["--gpus", "2"], ["--slurm"]])
def test_a_mistake_is_found_before_a_job_is_printed(command: list[Any], message: str, where: list[str]) -> None:
    main, *argv = command
    with pytest.raises(ValueError, match=message):
        main([*argv, *where, "--dry-run"])


def test_launch_options_are_taken_out() -> None:
    argv = [
        "davis",
        "--gpus",
        "4",
        "--data",
        "d",
        "--slurm",
        "--sbatch",
        "partition=a",
        "qos=b",
        "--cpus-per-gpu=3",
        "--jobs",
        "2",
    ]
    options, rest = split_launch_options(argv)
    assert rest == ["davis", "--data", "d", "--jobs", "2"]
    assert options == LaunchOptions(gpus=4, slurm=True, sbatch=["partition=a", "qos=b"], cpus_per_gpu=3)


def test_without_launch_options_a_command_runs_here() -> None:
    assert run_or_launch("eval", ["davis", "--jobs", "2"], len) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpus", "0"], "gpus=0 must be positive"),
        (["--nodes", "2"], "nodes=2 needs --slurm"),
        (["--slurm", "--hours", "0"], "hours"),
        (["--slurm", "--sbatch", "gpu"], "KEY=VALUE"),
        (["--slurm", "--sbatch", "time=3"], "--hours"),
        (["--slurm"], "no `srun`"),
    ],
)
def test_mistakes(arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ValueError, match=re.escape(message)):
        run_or_launch("eval", ["davis", *arguments], never)


def test_processes_of_torchrun_start_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="inside of torchrun"):
        run_or_launch("eval", ["davis", "--gpus", "2"], never)


def test_the_dry_run_prints_the_job(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    arguments = ["--slurm", "--nodes", "2", "--gpus", "4", "--hours", "1.5", "--sbatch", "account=x", "--dry-run"]
    assert run_or_launch("eval", ["detection", "--output", "a b", *arguments], never) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# each of 8 processes: python -m eval detection --output 'a b'\n")
    sizes = "nodes=2 ntasks-per-node=4 gpus-per-node=4 time=90 account=x job-name=patchbench-eval requeue signal=USR2@120"
    for line in sizes.split():
        assert f"#SBATCH --{line}\n" in printed


def test_the_dry_run_prints_torchrun(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_or_launch("eval", ["davis", "--gpus", "2", "--dry-run"], never) == 0
    assert capsys.readouterr().out == "python -m common.launch --standalone --nproc-per-node 2 -m eval davis\n"


SBATCH = """#!/bin/sh
# Stands in for Slurm: accepts a job, whose script is the last argument, and says its number.
for last; do :; done
cp "$last" {folder}/submitted.sh
echo "Submitted batch job 77"
"""


def test_a_job_is_submitted_and_its_processes_find_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes of a job, started as srun would start them, join and run the command."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"sbatch": SBATCH.format(folder=tmp_path), "srun": "#!/bin/sh\n"}.items():
        (programs / name).write_text(text)
        (programs / name).chmod((programs / name).stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    package = tmp_path / "joined"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "import torch.distributed as dist\n"
        "from pathlib import Path\n"
        "def main(argv):\n"
        "    dist.init_process_group('gloo')\n"
        "    Path(argv[0], f'{dist.get_rank()}.txt').write_text(str(dist.get_world_size()))\n"
        "    dist.barrier()\n"
        "    dist.destroy_process_group()\n"
        "    return 0\n"
    )
    jobs = tmp_path / "jobs"
    arguments = [str(tmp_path), "--slurm", "--gpus", "2", "--job-folder", str(jobs)]
    assert run_or_launch("joined", arguments, never) == 0
    assert "#SBATCH --ntasks-per-node=2" in (tmp_path / "submitted.sh").read_text()
    job = {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "2", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "localhost"}
    job |= {"SLURM_NODEID": "0", "SUBMITIT_EXECUTOR": "slurm", "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"}
    (programs / "scontrol").write_text("#!/bin/sh\necho localhost\n")
    (programs / "scontrol").chmod(0o755)
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
