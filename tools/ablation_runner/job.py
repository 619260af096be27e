"""A job of an ablation: pretrains a recipe, converts it, and evaluates it on DAVIS; here, under torchrun or as a Slurm job.

Each step continues or keeps what an earlier start left.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from common.cli import as_arguments, parse
from common.files import file_sha256, parse_json, write_text_atomically
from common.launch import run_or_launch
from eval.davis.config import DavisConfig
from eval.propagation.protocol import OF_DINO
from eval.result import RESULT_FILE
from eval.tasks import TASKS
from pretrain.config import PretrainConfig, parse_run
from tools.evaluation import BACKBONE_FILE, GROUP_VARIABLES

MODULE = "tools.ablation_runner"
RECORD_FILE = "ablation.json"
RECORD_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """Pretrain a recipe, convert it, and evaluate it on DAVIS, for a row of the ablations."""

    name: str  # The run's name; its files go to RUNS/NAME.
    recipe: str  # A recipe in pretrain/recipes.
    images: Path  # Folder of images to pretrain on.
    davis: Path  # The DAVIS folder.
    runs: Path  # Folder of runs.
    pretraining: list[str] = field(default_factory=list)  # Changes to the recipe, SECTION.FIELD=VALUE.
    evaluation: list[str] = field(default_factory=list)  # Options of `python -m eval davis`, OPTION=VALUE.

    @property
    def folder(self) -> Path:
        return self.runs / self.name

    @property
    def result(self) -> Path:
        return self.folder / "davis" / RESULT_FILE

    def pretrain_config(self) -> PretrainConfig:
        """The config of the pretraining; ValueError if a change does not fit the recipe."""
        places = as_arguments({"data.path": self.images, "train.output": self.folder})
        return parse_run([self.recipe, *places, *as_options(self.pretraining)])

    def davis_config(self) -> DavisConfig:
        """The config of the evaluation; ValueError if an option is unknown, or the figures would not be of the published protocol."""
        backbone, output = self.folder / BACKBONE_FILE, self.result.parent
        own = as_arguments({"backbone": backbone, "data": self.davis, "output": output, "name": self.name})
        config = parse(DavisConfig, [*own, *as_options(self.evaluation)], "python -m eval davis")
        if config.protocol not in OF_DINO:
            raise ValueError(f"protocol={config.protocol}: the published rows are of DINO's; leave it out")
        return config

    def arguments(self) -> list[str]:
        arguments = []
        for name, value in vars(self).items():
            values = value if isinstance(value, list) else [str(value)]
            arguments += [f"--{name}", *values] if values else []
        return arguments


class Job(NamedTuple):
    """A run and the rows that it fills."""

    options: JobOptions
    config: PretrainConfig
    images: int  # Number of images to pretrain on.
    departures: list[str]  # Where the pretraining departs from the published one.
    rows: tuple[str, ...]  # their names

    @property
    def name(self) -> str:
        return self.options.name

    @property
    def finished(self) -> bool:
        """Whether a job with these options and this number of images has left its result in the folder."""
        path = self.options.folder / RECORD_FILE
        if not path.is_file() or not self.options.result.is_file():
            return False
        try:
            return bool(parse_json(path.read_text(encoding="utf-8")) == _record(self.options, self.images))
        except ValueError as error:
            raise ValueError(f"{path}: damaged ({error}); remove it, and the job finds out what is done") from error


def as_options(settings: Sequence[str]) -> list[str]:
    """KEY=VALUE -> --KEY=VALUE; ValueError if the key or the value is missing."""
    for setting in settings:
        key, equals, _ = setting.partition("=")
        if not key.strip("-") or not equals:
            raise ValueError(f"{setting!r} is not KEY=VALUE")
    return [f"--{setting.lstrip('-')}" for setting in settings]


def main(argv: Sequence[str]) -> int:
    return run_or_launch(MODULE, argv, run_job)


def run_job(argv: Sequence[str]) -> int:
    """Do what is left of a job. Under torchrun or Slurm all processes pretrain, and the first one does the rest."""
    options = parse(JobOptions, argv, f"python -m {MODULE}")
    # These load torch.
    from backbones.convert import open_backbone
    from pretrain.data.sources import images_of_folder
    from pretrain.run import pretrain
    from tools.runs import write_backbone

    checkpoint = pretrain(options.pretrain_config())
    if int(os.environ.get("RANK", "0")) > 0:
        return 0
    for variable in GROUP_VARIABLES:
        # From here on this process works alone.
        os.environ.pop(variable, None)
    write_backbone(open_backbone(checkpoint), checkpoint, options.folder / BACKBONE_FILE)
    TASKS["davis"].load("task", "evaluate")(options.davis_config())
    record = _record(options, len(images_of_folder(options.images).names))
    write_text_atomically(options.folder / RECORD_FILE, json.dumps(record, indent=1) + "\n")
    return 0


def _record(options: JobOptions, images: int) -> dict[str, Any]:
    return {
        "version": RECORD_VERSION,
        "arguments": options.arguments(),
        "images": images,
        "result_sha256": file_sha256(options.result),
    }
