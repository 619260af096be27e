"""`python -m eval TASK`: evaluate one backbone file on one task."""

from collections.abc import Sequence
from typing import Any

from common.cli import parse, run_command
from common.files import check_name
from common.launch import run_or_launch
from eval.record import metrics_line
from eval.tasks import TASKS

USAGE = f"""usage: python -m eval TASK [options]

tasks: {", ".join(TASKS)}
`python -m eval TASK --help` lists a task's options. Every task also takes

  --gpus N             N processes on this machine, one per GPU (with --device cpu: on the CPU)
  --slurm              submit a Slurm job of --nodes M machines with --gpus N each; it continues after its time limit (--hours H)
                       --sbatch KEY=VALUE ... adds options of sbatch, --cpus-per-gpu C cores, --job-folder DIR its output
  --dry-run            print the command or the job instead"""


def main(argv: Sequence[str]) -> int:
    """Evaluate on the task that the first argument names."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)  # noqa: T201 - the command's own output
        return 0
    if argv[0] not in TASKS:
        raise ValueError(f"unknown task {argv[0]!r}; tasks: {', '.join(TASKS)}")
    return run_or_launch("eval", argv, _run, _parse)


def _parse(argv: Sequence[str]) -> Any:
    """The task's config; loads no torch, so that `--help` and mistakes are answered at once."""
    task = TASKS[argv[0]]
    config = parse(task.config, argv[1:], f"python -m eval {task.name}", task.summary)
    if config.name:
        check_name(config.name, "--name")
    return config


def _run(argv: Sequence[str]) -> int:
    config = _parse(argv)
    result = TASKS[argv[0]].load("task", "evaluate")(config)
    from common.distributed import rank  # which loads torch, as the task has done

    if rank() == 0:
        print(metrics_line(config.output, result))  # noqa: T201 - the command's own output
    return 0


if __name__ == "__main__":
    run_command(main)
