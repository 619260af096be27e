"""From the options to the jobs."""

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eval.davis.dataset import DavisSplit, find_sequences
from pretrain.config import PretrainConfig, parse_run
from pretrain.data.sources import find_images
from tools.ablation_runner.job import JobOptions
from tools.ablation_runner.rows import AblationRow, Table, choose_rows
from tools.ablation_runner.scales import COCO_IMAGES, Scale, departures, tiny_overrides
from tools.make_sample_data import SampleConfig, draw_samples
from tools.sample_data.scenes import COLOUR_PHOTOGRAPHS

logger = logging.getLogger(__name__)

SAMPLE_FOLDER = Path("sample")
DEPARTING = "deviating"
"""At the end of the name of a run that departs from its recipe, so that no table shows it as the recipe's."""


@dataclass(frozen=True, kw_only=True)
class AblationOptions:
    """Pretrain the recipes of a published ablation, evaluate each on DAVIS, put the figures beside the published ones."""

    scale: Scale = "full"
    """`full`: the recipes as they stand. `tiny`: small crops and heads, three epochs, a minute a row; such runs are named
    NAME-deviating and are no ablation, only a trial of the way."""
    only: list[str] = field(default_factory=list)
    """Only these rows, by their names (as --dry-run lists them) or recipes."""
    seeds: list[int] = field(default_factory=list)
    """Seeds of the pretraining, each a run of its own called NAME-seedS; the tables give mean and spread. By default the recipe's."""
    data: Path | None = None
    """Folder that holds `coco/train2017` and `DAVIS`; by default `data`, with `--scale tiny` sample data, drawn into sample/."""
    images: Path | None = None
    """Folder of images to pretrain on; by default DATA/coco/train2017, or the sample photographs."""
    runs: Path = Path("runs")
    """Folder of runs: checkpoint, backbone file and result of each go to RUNS/NAME."""
    output: Path = Path("results")
    """Folder for the tables."""
    pretraining: list[str] = field(default_factory=list)
    """Changes to every recipe, SECTION.FIELD=VALUE such as train.epochs=100 data.workers=4; the tables say what departs."""
    evaluation: list[str] = field(default_factory=list)
    """Options of every `python -m eval davis`, OPTION=VALUE such as jobs=4."""
    report_only: bool = False
    """Start nothing: only put the figures of the finished runs beside the published ones, such as after Slurm jobs."""
    images_per_second: float | None = None
    """For the estimate of --dry-run: images that the first listed job trains on per second, over all devices; by default a step is
    timed on this machine. The other jobs are scaled by their FLOPs."""

    def __post_init__(self) -> None:
        """Reject what cannot be planned."""
        if min(self.seeds, default=0) < 0 or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"--seeds {' '.join(map(str, self.seeds))}: give each once, 0 or more")
        if self.images_per_second is not None and not self.images_per_second > 0:
            raise ValueError(f"--images-per-second {self.images_per_second} must be positive")

    @property
    def on_samples(self) -> bool:
        """Whether sample data is used."""
        return self.scale == "tiny" and self.data is None

    @property
    def data_folder(self) -> Path:
        """Where the datasets lie."""
        return self.data or (SAMPLE_FOLDER if self.on_samples else Path("data"))

    @property
    def images_folder(self) -> Path:
        """What is pretrained on."""
        return self.images or self.data_folder / ("photos" if self.on_samples else "coco/train2017")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run and the rows that it fills."""

    options: JobOptions
    """What to do."""
    config: PretrainConfig
    """The resolved pretraining."""
    images: int
    """Images to pretrain on."""
    departures: dict[str, str]
    """Where the pretraining departs from the published one."""
    rows: tuple[str, ...]
    """Names of the rows."""

    @property
    def name(self) -> str:
        """Of the run."""
        return self.options.name


def plan_jobs(table: Table, options: AblationOptions, look_only: bool = False) -> list[Job]:
    """The jobs of the wanted rows, each run once whatever the number of rows that it fills.

    Args:
        table: Which ablation.
        options: The user's.
        look_only: Whether nothing will be run: absent images count as COCO train2017 then, and no sample data is drawn.

    Raises:
        ValueError: If data is absent, or an option does not fit a recipe; no job has been started then.
    """
    rows = choose_rows(table, options.only)
    if options.on_samples and not look_only:
        draw_samples(SampleConfig(output=SAMPLE_FOLDER))
    images = _count_images(options, look_only)
    jobs = []
    for recipe in dict.fromkeys(row.recipe for row in rows):
        jobs += [_plan_job(recipe, seed, options, rows, images) for seed in _seeds(options)]
    if not look_only:
        davis = jobs[0].options.davis_config()
        find_sequences(DavisSplit.from_options(davis.data, davis.split, davis.year, davis.resolution, davis.sequences), True)
    return jobs


def plan_others(table: Table, options: AblationOptions, planned: Sequence[Job]) -> list[Job]:
    """The jobs of the rows that `--only` leaves out: an earlier command may have finished them."""
    images = _count_images(options, look_only=False)
    rows = choose_rows(table, [])
    planned_recipes = {job.options.recipe for job in planned}
    jobs = []
    for recipe in dict.fromkeys(row.recipe for row in rows if row.recipe not in planned_recipes):
        try:
            jobs += [_plan_job(recipe, seed, options, rows, images) for seed in _seeds(options)]
        except ValueError as error:
            logger.debug("%s was never run with these options, which it refuses: %s", recipe, error)
    return jobs


def _seeds(options: AblationOptions) -> Sequence[int | None]:
    return options.seeds or [None]


def _plan_job(recipe: str, seed: int | None, options: AblationOptions, rows: Sequence[AblationRow], images: int) -> Job:
    published = parse_run([recipe])
    changes = tiny_overrides(published) if options.scale == "tiny" else []
    if seed is not None:
        changes.append(f"train.seed={seed}")
    unnamed = JobOptions(
        name=recipe,
        recipe=recipe,
        images=options.images_folder,
        davis=options.data_folder / "DAVIS",
        runs=options.runs,
        pretraining=[*changes, *options.pretraining],
        evaluation=options.evaluation,
    )
    config = unnamed.pretrain_config()
    found = departures(published, config, images)
    name = "-".join([recipe, *([DEPARTING] if found else []), *([] if seed is None else [f"seed{seed}"])])
    job = dataclasses.replace(unnamed, name=name)
    config.train.output = job.folder
    job.davis_config()
    return Job(
        options=job,
        config=config,
        images=images,
        departures=found,
        rows=tuple(row.name for row in rows if row.recipe == recipe),
    )


def _count_images(options: AblationOptions, look_only: bool) -> int:
    if look_only and not options.images_folder.is_dir():
        drawn = SampleConfig(output=SAMPLE_FOLDER).photos
        logger.info("%s is not there; counting the images that belong there", options.images_folder)
        return len(COLOUR_PHOTOGRAPHS) * drawn if options.on_samples else COCO_IMAGES
    return len(find_images(options.images_folder))
