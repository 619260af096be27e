"""Where a command runs: in this process, in several on this machine, or as a Slurm job.

`python -m common.launch OPTIONS -m MODULE ...` is torchrun, but SIGUSR1 and SIGUSR2 reach the processes too; these get time to save
their state; and the exit status is that of the process which failed first, or 128 + N after signal N, without torchrun's traceback.
"""

import importlib
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from common.cli import Interrupted, parse, run_command, set_up_process

_SHARED_MEMORY = Path("/dev/shm")
_BATCHES_UNDER_WAY = 2  # for each loading process: PyTorch's prefetch_factor

_SIZES = "nodes", "time", "ntasks_per_node", "gpus_per_node", "cpus_per_task", "job_name"
_WARNING_SECONDS = 120  # before its time limit Slurm signals a job (SIGUSR2, submitit's choice), to finish a step and save
_SAVING_SECONDS = 90  # from a signal until torchrun kills processes, for a step and a checkpoint; if a process fails, it is 30
_RESTARTS = 100  # how often a job may reach its time limit and be queued again; only a job without progress needs a limit


def usable_cores() -> int:
    """Those that a container or a Slurm job may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def loader_processes(wanted: int, batch_bytes: int, option: str) -> int:
    """How many processes load batches of so many bytes: as many as `option` wants, but no more than there are cores.

    The processes of a run on one machine share its cores, unless Slurm gives each its own.
    ValueError if the shared memory through which batches pass cannot hold those that are under way, on which loaders would hang.
    """
    on_machine = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    sharers = 1 if "SLURM_CPUS_PER_TASK" in os.environ else on_machine
    processes = min(wanted, max(1, usable_cores() // sharers))
    needed = processes * _BATCHES_UNDER_WAY * batch_bytes
    if not processes or not _SHARED_MEMORY.is_dir():
        return processes
    memory = shutil.disk_usage(_SHARED_MEMORY)
    # What the machine's other processes hold already is not free, so that only the whole can be compared with what all need.
    if memory.free < needed or memory.total < needed * on_machine:
        raise ValueError(
            f"{option} {wanted}: {processes * on_machine} loading processes need {needed * on_machine >> 20} MiB of shared memory, "
            f"and {_SHARED_MEMORY} has {memory.free >> 20} MiB; give {option} 0, or more of it (docker run --shm-size)"
        )
    return processes


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """Run a command on several GPUs, or submit it to Slurm."""

    gpus: int | None = None
    """Processes on each machine, one per GPU (with `--device cpu`: on the CPU). Default: this process, or torchrun's."""
    slurm: bool = False
    """Submit a Slurm job instead of running here; it continues by itself after a time limit or a preemption: a signal some minutes
    before lets it save, and it is queued again."""
    nodes: int = 1  # Machines of the Slurm job.
    hours: float = 24.0  # Time limit of the Slurm job.
    cpus_per_gpu: int = 8  # Cores for each process of the Slurm job.
    sbatch: list[str] = field(default_factory=list)  # More options of sbatch, such as `partition=gpu account=vision`.
    job_folder: Path = Path("slurm")  # Folder for the job's script and output.
    dry_run: bool = False  # Print what would be started or submitted, and stop.

    def __post_init__(self) -> None:
        for name in ("gpus", "nodes", "cpus_per_gpu", "hours"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name}={value} must be positive")
        if self.nodes > 1 and not self.slurm:
            raise ValueError(f"nodes={self.nodes} needs --slurm; without Slurm start torchrun on each machine")
        for text in (*self.sbatch, str(self.job_folder)):
            if not text.isprintable():
                raise ValueError(f"--sbatch or --job-folder {text!a}: control characters could add lines to the job's script")
        self.sbatch_parameters()

    def sbatch_parameters(self) -> dict[str, str]:
        result = {}
        for entry in self.sbatch:
            key, equals, value = entry.partition("=")
            key = key.lstrip("-").replace("-", "_")
            if not equals or not key:
                raise ValueError(f"--sbatch {entry}: give KEY=VALUE, such as partition=gpu")
            if key in _SIZES:
                raise ValueError(f"--sbatch {entry}: use --gpus, --nodes, --hours and --cpus-per-gpu for the job's size")
            result[key] = value
        return result


@dataclass(frozen=True, kw_only=True)
class Command:
    """`python -m MODULE ARGUMENTS`, also as the function of a Slurm job; the module's `__main__` has `main(argv)`."""

    module: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(["python", "-m", self.module, *self.arguments])

    def __call__(self) -> None:
        """Run as one process of a Slurm job, whose variables become torch's."""
        import submitit.helpers

        # Each process sees all GPUs of its machine and takes the one of its local rank, as under torchrun.
        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        set_up_process()
        try:
            status = importlib.import_module(f"{self.module}.__main__").main(list(self.arguments))
        except Interrupted as interrupted:
            # Its work is saved: the signal goes to whoever would have had it, and this process waits for the job's end. On SIGUSR2
            # submitit's handler queues the job again, in its first process. It ignores SIGTERM, which comes with a preemption: a job
            # that ends by itself then would count as failed and not be queued again.
            signal.raise_signal(signal.Signals(interrupted.signum))
            while True:
                signal.pause()
        if status:
            raise RuntimeError(f"{self} ended with status {status}")

    def checkpoint(self) -> Any:
        """Called by submitit before the time limit and at preemption: the same command again, to continue from its own checkpoint."""
        import submitit.helpers

        return submitit.helpers.DelayedSubmission(self)


def split_launch_options(argv: Sequence[str]) -> tuple[LaunchOptions, list[str]]:
    """Take the options of `LaunchOptions` out of a command line."""
    names = {f"--{item.name.replace('_', '-')}" for item in fields(LaunchOptions)}
    parts: dict[bool, list[str]] = {True: [], False: []}
    is_own = False
    for argument in argv:
        if argument.startswith("--"):
            is_own = argument.partition("=")[0].replace("_", "-") in names
        parts[is_own].append(argument)
    return parse(LaunchOptions, parts[True], "launching"), parts[False]


def run_or_launch(
    module: str,
    argv: Sequence[str],
    run: Callable[[Sequence[str]], int],
    check: Callable[[Sequence[str]], object] | None = None,
) -> int:
    """Run `python -m MODULE ARGV` here, by `run` with the other options, or where the options of `LaunchOptions` in it say.

    `check` reads the other options as `run` does, so that a mistake is found before anything is started or queued.
    """
    options, rest = split_launch_options(argv)
    if not options.slurm and options.gpus is None and not options.dry_run:
        return run(rest)
    if check is not None:
        check(rest)
    command = Command(module=module, arguments=tuple(rest))
    if options.slurm:
        return submit(command, options)
    if options.gpus is not None and "WORLD_SIZE" in os.environ:
        raise ValueError(f"--gpus {options.gpus} inside of torchrun: leave it out, or unset WORLD_SIZE")
    torchrun = ["common.launch", "--standalone", "--nproc-per-node", str(options.gpus or 1), "-m", module, *rest]
    if options.dry_run:
        print(shlex.join(["python", "-m", *torchrun]))  # noqa: T201 - what the user asked for
        return 0
    os.execv(sys.executable, [sys.executable, "-m", *torchrun])


def submit(command: Command, options: LaunchOptions) -> int:
    """Queue a command as a Slurm job, or print the job with `--dry-run`."""
    from submitit.slurm import slurm

    processes = options.gpus or 1
    parameters: dict[str, Any] = {
        "job_name": f"patchbench-{command.module}",
        "nodes": options.nodes,
        "ntasks_per_node": processes,
        "gpus_per_node": processes,
        "cpus_per_task": options.cpus_per_gpu,
        "time": max(1, round(options.hours * 60)),
        "signal_delay_s": _WARNING_SECONDS,
        "additional_parameters": {"requeue": True, **options.sbatch_parameters()},
    }
    if options.dry_run:
        runner = shlex.join([sys.executable, "-u", "-m", "submitit.core._submit", str(options.job_folder)])
        print(f"# each of {options.nodes * processes} processes: {command}")  # noqa: T201 - what the user asked for
        print(slurm._make_sbatch_string(runner, options.job_folder, **parameters), end="")  # noqa: T201
        return 0
    if slurm.SlurmExecutor.affinity() < 0:
        raise ValueError("--slurm: no `srun` on this machine; submit from a login node, or see the job with --dry-run")
    executor = slurm.SlurmExecutor(folder=options.job_folder, max_num_timeout=_RESTARTS)
    executor.update_parameters(**parameters)
    job = executor.submit(command)
    print(f"submitted job {job.job_id}; output in {job.paths.stdout}")  # noqa: T201 - what the user asked for
    return 0


def main(argv: Sequence[str]) -> int:
    """Start processes as torchrun does, with its options, and wait for them."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(_SAVING_SECONDS))
    try:
        run.run(run.parse_args(["--signals-to-handle", "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2", *argv]))
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        return Interrupted(error.sigval).status
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        # A negative number is the signal that ended the process.
        return failure.exitcode if failure.exitcode >= 0 else Interrupted(-failure.exitcode).status
    return 0


if __name__ == "__main__":
    try:
        run_command(main)
    except SystemExit as ended:
        # A thread of torch's store that still runs would abort the process while Python ends, and change its exit status.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(ended.code or 0))
