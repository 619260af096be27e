"""`python -m eval TASK`: evaluate one backbone file on one task."""

import importlib
from collections.abc import Sequence

from common.command import run_command
from common.launch import run_or_launch

# Each task's module has `main(argv) -> int` and `parse(argv)`. Imported only when asked for: DAVIS runs where OpenMMLab is not
# installed.
TASKS = {
    "davis": "eval.davis.task",
    "detection": "eval.detection.task",
    "segmentation": "eval.segmentation.task",
    "classification": "eval.classification.task",
}

USAGE = f"""usage: python -m eval TASK [options]

tasks: {", ".join(TASKS)}
`python -m eval TASK --help` lists a task's options. Every task also takes

  --gpus N             N processes on this machine, one per GPU (with --device cpu: on the CPU)
  --slurm              submit a Slurm job of --nodes M machines with --gpus N each; it continues after its time limit (--hours H)
                       --sbatch KEY=VALUE ... adds options of sbatch, --cpus-per-gpu C cores, --job-folder DIR its output
  --dry-run            print the command or the job instead"""


def main(argv: Sequence[str]) -> int:
    """Hand the arguments to the task that the first one names."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)  # noqa: T201 - the command's own output
        return 0
    if argv[0] not in TASKS:
        raise ValueError(f"unknown task {argv[0]!r}; tasks: {', '.join(TASKS)}")
    return run_or_launch("eval", argv, _run_task, _parse_task)


def _run_task(argv: Sequence[str]) -> int:
    status: int = importlib.import_module(TASKS[argv[0]]).main(argv[1:])
    return status


def _parse_task(argv: Sequence[str]) -> None:
    importlib.import_module(TASKS[argv[0]]).parse(argv[1:])


if __name__ == "__main__":
    run_command(main)
