"""`python -m eval TASK`: evaluate one backbone file on one task."""

import importlib
from collections.abc import Sequence

from common.command import run_command

# Each task's module has `main(argv) -> int`. Imported only when asked for: DAVIS runs where OpenMMLab is not installed.
TASKS = {
    "davis": "eval.davis.task",
    "detection": "eval.detection.task",
    "segmentation": "eval.segmentation.task",
}

USAGE = f"""usage: python -m eval TASK [options]

tasks: {", ".join(TASKS)}
`python -m eval TASK --help` lists a task's options."""


def main(argv: Sequence[str]) -> int:
    """Hand the arguments to the task that the first one names."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)  # noqa: T201 - the command's own output
        return 0
    if argv[0] not in TASKS:
        raise ValueError(f"unknown task {argv[0]!r}; tasks: {', '.join(TASKS)}")
    return importlib.import_module(TASKS[argv[0]]).main(argv[1:])


if __name__ == "__main__":
    run_command(main)
