"""A real Slurm of one machine: what a job computes, and that it continues when it is told to stop."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

import eval.__main__
import pretrain.__main__
from eval.tasks import TASKS
from tests.commands import Main, draw_inputs, metrics_below, start, statuses, task_arguments
from tests.pretrain.conftest import assert_equal, tiny_run, weights

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not all(map(shutil.which, ("slurmctld", "slurmd", "munged", "sbatch"))), reason="Slurm is not installed"
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a Slurm that runs jobs"),
]

# A job that was stopped is not started again before the credentials of its first start expire: AuthInfo, not two minutes.
SETTINGS = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
GresTypes=gpu
ReturnToService=2
JobRequeue=1
KillWait=60
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=64 Gres=gpu:2
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE
"""
LONGEST_S = 240


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.create_server(("127.0.0.1", 0)))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def wait_until(is_so: Callable[[], object], what: Callable[[], str] = str) -> None:
    end = time.monotonic() + LONGEST_S
    while not is_so():
        assert time.monotonic() < end, what()
        time.sleep(0.2)


@pytest.fixture(scope="module")
def slurm() -> Iterator[Callable[..., str]]:
    """A running Slurm with one node of two GPUs, which are empty devices; runs one of its programs and returns what it prints."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm")))  # short enough for a socket
        folder.chmod(0o755)
        for name in ("state", "spool"):
            (folder / name).mkdir()
        for number in range(2):
            os.mknod(folder / f"gpu{number}", 0o20666, os.makedev(1, 3))
        (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-1]\n")
        host = socket.gethostname().partition(".")[0]
        (folder / "slurm.conf").write_text(SETTINGS.format(folder=folder, host=host, ports=free_ports(2)))
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o400)
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]

        def run(*command: str) -> str:
            return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout

        def daemon(*command: str) -> None:
            log = stack.enter_context((folder / f"{command[0]}.log").open("wb"))
            process = subprocess.Popen(command, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.terminate)

        daemon("munged", "--foreground", "--force", *files, f"--socket={folder}/munge.socket")
        wait_until((folder / "munge.socket").exists)
        daemon("slurmctld", "-D", "-c")
        daemon("slurmd", "-D")
        wait_until(lambda: run("sinfo", "-h", "-o", "%T").strip() == "idle", (folder / "slurmd.log").read_text)
        yield run
        run("scancel", "--signal=KILL", "--full", "--user=root")
        run("scancel", "--user=root")
        wait_until(lambda: not run("squeue", "-h"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_inputs(tmp_path_factory.mktemp("inputs"), frames=20)


def command(name: str, inputs: Path, output: Path, more: str) -> tuple[Main, Sequence[object]]:
    if name in TASKS:
        arguments = task_arguments(name, inputs / "toy.safetensors", inputs, output)
        return eval.__main__.main, [*arguments, *more.split()]
    return pretrain.__main__.main, [*tiny_run(inputs / "photos", output), *more.split()]


def submit(main: Main, arguments: Sequence[object], folder: Path) -> str:
    """Submit a job of two processes and return its number."""
    log = folder / "submission.log"
    job = ["--slurm", "--gpus", 2, "--cpus-per-gpu", 2, "--hours", 0.5, "--job-folder", folder / "jobs"]
    variables = {"SLURM_CONF": os.environ["SLURM_CONF"], "OMP_NUM_THREADS": "1"}
    assert statuses(start(main, [*arguments, *job], log, **variables)) == [0], log.read_text()
    (number,) = re.findall(r"submitted job (\d+)", log.read_text())
    return str(number)


def compute_in_two(main: Main, arguments: Sequence[object], folder: Path) -> None:
    """The same in two processes without Slurm."""
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_ports(1)[0])}
    logs = [folder / f"{rank}.log" for rank in range(2)]
    both = [start(main, arguments, log, RANK=str(rank), LOCAL_RANK=str(rank), **group)[0] for rank, log in enumerate(logs)]
    assert statuses(both) == [0, 0], logs[0].read_text() + logs[1].read_text()


def said(folder: Path) -> str:
    """What a job's processes printed."""
    return "".join(path.read_text() for path in sorted((folder / "jobs").glob("*_log.*")))


def wait_for_end(slurm: Callable[..., str], job: str, folder: Path) -> None:
    def state() -> str:
        return slurm("scontrol", "show", "job", job)

    wait_until(
        lambda: re.search("JobState=(COMPLETED|FAILED|CANCELLED|TIMEOUT|NODE_FAIL)", state()), lambda: state() + said(folder)
    )
    assert "JobState=COMPLETED" in state(), said(folder)


def assert_same(name: str, found: Path, wanted: Path) -> None:
    assert metrics_below(found) == metrics_below(wanted)
    if name == "pretrain":
        assert_equal(weights(found), weights(wanted))


@pytest.mark.parametrize("name", [*TASKS, "pretrain"])
def test_a_job_computes_what_two_processes_do(name: str, slurm: Callable[..., str], inputs: Path, tmp_path: Path) -> None:
    compute_in_two(*command(name, inputs, tmp_path / "local", ""), tmp_path)
    job = submit(*command(name, inputs, tmp_path / "job", ""), tmp_path)
    wait_for_end(slurm, job, tmp_path)
    assert_same(name, tmp_path / "job", tmp_path / "local")


# Task -> options that make it long enough; a file that is there once it is under way; what it says when it has continued.
SAVED = r"stopped by SIG(USR2|TERM) after .*, which is saved[^$]*continuing"
STOPPED = {
    "davis": ("", "masks/.*.partial/*.png", "sequences; features"),
    "detection": ("--iterations 30 --checkpoint-interval 1000", "training/training.jsonl", SAVED),
    "segmentation": ("--iterations 40 --checkpoint-interval 1000", "training/training.jsonl", SAVED),
    "classification": ("--epochs 300", "linear.pth", "finished by an earlier run|not run again"),
    "depth": ("--iterations 400 --checkpoint-interval 100", "head.pth", "made by an earlier run|not run again"),
    "retrieval_segmentation": (
        "--augmentation-epochs 100 --memory-size 4000 --batch-size 1",
        "config.json",
        "the memory has|not run again",  # it may be stopped before it says so
    ),
    "linear_segmentation": ("--iterations 400 --evaluate-every 200", "linear.pth", "made by an earlier run|not run again"),
    "pretrain": ("--train.epochs 20 --train.checkpoint-every 1000", "log.jsonl", SAVED),
}


@pytest.mark.parametrize("how", ["scancel --signal=USR2", "scontrol requeue"])
@pytest.mark.parametrize("name", STOPPED)
def test_a_stopped_job_continues(how: str, name: str, slurm: Callable[..., str], inputs: Path, tmp_path: Path) -> None:
    """As before its time limit, and as when a job of higher priority takes its place, in the middle of its work."""
    more, sign, continued = STOPPED[name]
    compute_in_two(*command(name, inputs, tmp_path / "local", more), tmp_path)
    job = submit(*command(name, inputs, tmp_path / "job", more), tmp_path)
    wait_until(lambda: list((tmp_path / "job").glob(sign)), lambda: said(tmp_path))
    assert not list((tmp_path / "job").glob("result.json"))
    slurm(*how.split(), job)
    wait_until(lambda: "Restarts=1" in slurm("scontrol", "show", "job", job), lambda: said(tmp_path))
    wait_for_end(slurm, job, tmp_path)
    assert re.search(continued, said(tmp_path)), said(tmp_path)
    assert_same(name, tmp_path / "job", tmp_path / "local")
