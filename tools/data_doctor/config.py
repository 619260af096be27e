"""What the data doctor is asked for."""

from dataclasses import dataclass
from pathlib import Path

TASKS = ("davis", "detection", "segmentation", "classification")
"""In the order of the report."""


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Examine the datasets under a folder: what is there, what is missing or damaged, and where to get it.

    Exit status: 0 if everything asked for is usable, 1 if there are problems, 2 for a mistake in the command line.
    """

    data: Path = Path("data")
    """Folder that holds `coco`, `ade/ADEChallengeData2016`, `DAVIS` and, for classification, `imagenet`."""
    tasks: str = ""
    """Only the datasets of these tasks, separated by commas: davis, detection, segmentation, classification. One that is
    named here and absent is a problem; by default, whatever is there is examined."""
    deep: bool = False
    """Decode every file instead of looking at its header and its end."""
    jobs: int = 0
    """Processes; 0: one per core."""
    names: int = 5
    """So many file names are shown of each kind of problem; the JSON file has all."""
    json: Path | None = None
    """Write the report to this file as well, for programs."""

    def __post_init__(self) -> None:
        """Reject what cannot be."""
        for field in ("jobs", "names"):
            if getattr(self, field) < 0:
                raise ValueError(f"--{field} {getattr(self, field)} is negative; pass 0 or more")
        if unknown := [task for task in self.asked_tasks if task not in TASKS]:
            raise ValueError(f"--tasks: unknown {', '.join(unknown)}; tasks: {', '.join(TASKS)}")
        if self.tasks and not self.asked_tasks:
            raise ValueError(f"--tasks names no task; tasks: {', '.join(TASKS)}")
        if not self.data.is_dir():
            raise ValueError(
                f"--data {self.data}: no such folder; it is the one that holds coco, ade/ADEChallengeData2016 and DAVIS "
                f"(`mkdir -p {self.data}` and the same again: where to get them)"
            )

    @property
    def asked_tasks(self) -> list[str]:
        """The tasks that the user named."""
        return [task.strip() for task in self.tasks.split(",") if task.strip()]
