"""Signals in the middle of a run: the step is finished and saved, and the same command goes on as if nothing had been."""

import os
import shlex
import signal
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from submitit.core.submission import submitit_main

from common.cli import STOP_SIGNALS
from pretrain.__main__ import main
from pretrain.config import parse_run
from pretrain.run import pretrain as run_pretraining
from tests.conftest import RunMain
from tests.pretrain.conftest import after_step, assert_equal, has_current_environment, logged, tiny_run, wait_for_steps, weights
from tests.processes import fork, run_as_command, statuses


def saved_step(output: Path) -> int:
    return int(torch.load(output / "checkpoint.pth", weights_only=True)["step"])


def signal_in_step(patch: pytest.MonkeyPatch, step: int, number: signal.Signals) -> None:
    after_step(patch, step, lambda *_: os.kill(os.getpid(), number))


@pytest.fixture(scope="module")
def whole(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that nobody stopped."""
    return run_pretraining(parse_run(tiny_run(image_folder, tmp_path_factory.mktemp("whole")))).parent


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_ends_the_run_after_the_step(
    image_folder: Path, tmp_path: Path, whole: Path, run_main: RunMain, caplog: pytest.LogCaptureFixture, number: signal.Signals
) -> None:
    """Also between checkpoints."""
    caplog.set_level("INFO")
    command = tiny_run(image_folder, tmp_path, train__checkpoint_every=100)
    with pytest.MonkeyPatch.context() as patch:
        signal_in_step(patch, 2, number)
        finished = run_main(main, command)
    assert finished.status == 128 + number
    assert "Traceback" not in finished.stderr
    assert any(f"stopped by {number.name} after step 2, which is saved" in message for message in caplog.messages)
    assert saved_step(tmp_path) == 2
    assert run_main(main, command).status == 0
    assert_equal(weights(tmp_path), weights(whole))
    assert logged(tmp_path) == logged(whole)


def test_a_signal_in_the_last_step_changes_nothing(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signal_in_step(monkeypatch, 6, signal.SIGTERM)
    run_pretraining(parse_run(tiny_run(image_folder, tmp_path)))
    assert saved_step(tmp_path) == 6


def long_options(images: Path, output: Path, **more: Any) -> list[str]:
    """Enough steps for a signal to come before the last."""
    return tiny_run(images, output, train__epochs=200, train__checkpoint_every=10_000, **more)


@pytest.mark.parametrize("how", ["as a group", "by the script"])
def test_a_signal_from_outside(image_folder: Path, tmp_path: Path, how: str) -> None:
    """Slurm's `scancel` reaches the workers that load images too, which must outlive it; a script passes it on to two processes."""
    arguments = long_options(image_folder, tmp_path, data__workers=2 if how == "as a group" else 0)
    log = tmp_path / "messages.log"
    if how == "as a group":
        process, number = fork(log, run_as_command, main, arguments), signal.SIGTERM
    elif has_current_environment():
        script = ["bash", "tools/pretrain.sh", *arguments]
        process, number = fork(log, os.execvp, "bash", script, NPROC_PER_NODE="2"), signal.SIGUSR1
    else:
        pytest.skip("tools/pretrain.sh would install first; run tools/setup.sh")
    wait_for_steps(process, tmp_path, 3)
    assert process.pid is not None
    (os.killpg if how == "as a group" else os.kill)(process.pid, number)
    assert statuses([process]) == [128 + number], log.read_text()
    messages = log.read_text()
    assert "Traceback" not in messages, messages
    step = saved_step(tmp_path)
    assert f"stopped by {number.name} after step {step}, which is saved" in messages
    assert logged(tmp_path)[-1]["step"] == step


def submitted(jobs: Path) -> None:
    """What a Slurm job's script runs in each of its processes."""
    sys.argv = ["submitit", str(jobs)]
    submitit_main()


def test_a_slurm_job_saves_and_is_queued_again(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that stand in for Slurm take the job; its two processes are started as srun would, and signalled as Slurm does."""
    programs, jobs, output = tmp_path / "bin", tmp_path / "jobs", tmp_path / "run"
    programs.mkdir()
    called = tmp_path / "scontrol.txt"
    scripts = {
        "sbatch": "echo Submitted batch job 77",
        "srun": "true",
        "scontrol": f'[ "$1" = requeue ] && echo "$@" >> {shlex.quote(str(called))}; echo localhost',
    }
    for name, line in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    options = long_options(image_folder, output)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    assert main([*options, "--slurm", "--gpus", "2", "--job-folder", str(jobs)]) == 0
    variables = {"PATH": os.environ["PATH"]}
    job = {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "2", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "localhost"}
    variables |= job | {"SLURM_NODEID": "0", "SUBMITIT_EXECUTOR": "slurm"}

    logs = [tmp_path / f"{rank}.log" for rank in range(2)]

    def start_job() -> list[BaseProcess]:
        ranks = ({"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(2))
        return [fork(log, submitted, jobs, **variables, **rank) for log, rank in zip(logs, ranks, strict=True)]

    processes = start_job()
    try:
        wait_for_steps(processes[0], output, 3)
        for process in processes:
            os.kill(process.pid or 0, signal.SIGUSR2)
        processes[0].join(120)
        messages = logs[0].read_text()
        step = saved_step(output)
        assert "cpu, 2 processes" in messages
        assert f"stopped by SIGUSR2 after step {step}, which is saved" in messages
        assert called.read_text() == "requeue 77\n"
        assert processes[1].is_alive(), "the others wait for Slurm to end the job"
        processes[1].kill()
        processes += start_job()
        wait_for_steps(processes[2], output, step + 1)
    finally:
        for process in processes:
            process.kill()
            process.join()
