"""Pretrains and evaluates the rows of a published ablation. `tools/ablation.sh` calls this."""

import dataclasses
import logging
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.cli import parse, run_command
from common.files import lock_folder, write_text_atomically
from common.launch import LaunchOptions
from eval.result import read_result
from pretrain.config import parse_run
from tools.ablation_runner.job import MODULE, Job, JobOptions
from tools.ablation_runner.rows import COCO_IMAGES, ROWS, Scale, Table, choose_rows, departures, published_rows, tiny_changes
from tools.make_sample_data import SAMPLE_FOLDER, SampleConfig, draw_samples

PROG = "bash tools/ablation.sh"
DEPARTING = "deviating"
"""A word in the name of a run that departs from its recipe, so that no table shows it as the recipe's."""
LOCK_FILE = ".ablation.lock"  # of a run's folder, into which the run's own pretraining writes meanwhile

logger = logging.getLogger("ablation")


@dataclass(frozen=True, kw_only=True)
class AblationOptions(LaunchOptions):
    """Pretrain the recipes of a published ablation, evaluate each on DAVIS, put the results beside the published ones."""

    table: tyro.conf.Positional[Table]  # The published ablation to run.
    scale: Scale = "full"
    """`full`: the recipes as they are. `tiny`: small crops and heads, three epochs, a minute per row; these runs are named
    NAME-deviating and only try out the pipeline."""
    only: list[str] = field(default_factory=list)
    """Run only these rows, by their names (as --dry-run lists them) or recipes."""
    seeds: list[int] = field(default_factory=list)
    """Seeds of the pretraining; each has its own run NAME-seedS, and the tables give mean and spread. Default: the recipe's seed."""
    data: Path | None = None
    """Folder that holds `coco/train2017` and `DAVIS`; the default is `data`, with `--scale tiny` the sample data."""
    images: Path | None = None
    """Folder of images to pretrain on; the default is DATA/coco/train2017, or the sample photographs."""
    runs: Path = Path("runs")  # Folder of runs: checkpoint, backbone file and result of each go to RUNS/NAME.
    output: Path = Path("results")  # Folder for the tables.
    pretraining: list[str] = field(default_factory=list)
    """Changes to every recipe, SECTION.FIELD=VALUE such as train.epochs=100 data.workers=4; the tables name them."""
    evaluation: list[str] = field(default_factory=list)
    """Options of every `python -m eval davis`, OPTION=VALUE such as jobs=4."""
    report_only: bool = False
    """Start nothing; only put the results of finished runs beside the published ones, for example after Slurm jobs."""
    images_per_second: float | None = None
    """Images per second of the first listed job over all devices, for the estimate of --dry-run; by default, a few steps are timed.
    The other jobs are scaled by their FLOPs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.seeds, default=0) < 0 or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"--seeds {' '.join(map(str, self.seeds))}: give each once, 0 or more")
        if self.images_per_second is not None and not self.images_per_second > 0:
            raise ValueError(f"--images-per-second {self.images_per_second} must be positive")

    @property
    def on_samples(self) -> bool:
        return self.scale == "tiny" and self.data is None

    @property
    def data_folder(self) -> Path:
        return self.data or (SAMPLE_FOLDER if self.on_samples else Path("data"))

    @property
    def images_folder(self) -> Path:
        return self.images or self.data_folder / ("photos" if self.on_samples else "coco/train2017")


def plan_jobs(options: AblationOptions) -> list[Job]:
    """The jobs of the chosen rows; rows of one recipe share a job.

    With --dry-run, absent images count as COCO train2017, and no sample data is drawn. ValueError if data is absent, or if an option
    does not fit a recipe.
    """
    recipes = dict.fromkeys(choose_rows(options.table, options.only).values())
    for recipe in recipes:
        _plan_recipe(recipe, options, COCO_IMAGES)  # finds what is mistyped before torch is loaded to count the images
    if options.on_samples and not options.dry_run:
        draw_samples(SampleConfig(output=SAMPLE_FOLDER))
    images = _count_images(options)
    jobs = [job for recipe in recipes for job in _plan_recipe(recipe, options, images)]
    if not options.dry_run:
        from eval.davis.data import DavisSplit, find_sequences

        davis = jobs[0].options.davis_config()
        find_sequences(DavisSplit.chosen(davis.data, davis, davis.sequences), all_masks=True)
    return jobs


def _plan_recipe(recipe: str, options: AblationOptions, images: int) -> list[Job]:
    """A job for each seed."""
    published = parse_run([recipe])
    changes = tiny_changes(published) if options.scale == "tiny" else []
    rows = tuple(name for name, own in choose_rows(options.table, options.only).items() if own == recipe)
    jobs = []
    seeds: Sequence[int | None] = options.seeds or [None]
    for seed in seeds:
        of_seed = [] if seed is None else [f"train.seed={seed}"]
        unnamed = JobOptions(
            name=recipe,
            recipe=recipe,
            images=options.images_folder,
            davis=options.data_folder / "DAVIS",
            runs=options.runs,
            pretraining=[*changes, *of_seed, *options.pretraining],
            evaluation=options.evaluation,
        )
        unnamed.davis_config()  # refuses unknown options before any job starts
        config = unnamed.pretrain_config()
        found = departures(published, config, images)
        name = "-".join([recipe, *([DEPARTING] if found else []), *([] if seed is None else [f"seed{seed}"])])
        jobs.append(Job(dataclasses.replace(unnamed, name=name), config, images, found, rows))
    return jobs


def _count_images(options: AblationOptions) -> int:
    from tools.sample_data.scenes import COLOUR_PHOTOGRAPHS

    if not options.images_folder.is_dir():
        if not options.dry_run:
            raise ValueError(f"{options.images_folder} is not a folder; give --data, or the folder of images by --images")
        logger.info("%s does not exist; counting the images that belong there", options.images_folder)
        drawn = SampleConfig(output=SAMPLE_FOLDER).photos
        return len(COLOUR_PHOTOGRAPHS) * drawn if options.on_samples else COCO_IMAGES
    from pretrain.data.sources import images_of_folder

    return len(images_of_folder(options.images_folder).names)


def run_ablation(options: AblationOptions) -> bool:
    """Check all jobs, then run, submit or list them. Return whether all succeeded."""
    jobs = plan_jobs(options)
    # These load torch, for which mistakes need not wait.
    from tools.ablation_runner.cost import job_listing
    from tools.runs import launch

    if options.dry_run:
        print(job_listing(jobs, options.images_per_second))  # noqa: T201 - the command's own output
        for job in jobs:
            print()  # noqa: T201
            launch(MODULE, job.options.arguments(), options, job.config.train.device)
        return True
    left = [job for job in jobs if not job.finished]
    logger.info("%d jobs, of which %d are finished", len(jobs), len(jobs) - len(left))
    if options.report_only:
        left = []
    elif options.slurm:
        for job in left:
            launch(MODULE, job.options.arguments(), options, job.config.train.device)
        print("when they have ended, the same command with --report-only in place of --slurm writes the tables")  # noqa: T201
        return True
    with ExitStack() as held:
        for job in left:
            held.enter_context(lock_folder(job.options.folder, LOCK_FILE))
        failed = {}
        for number, job in enumerate(left, start=1):
            logger.info("job %d of %d: %s, for the rows %s", number, len(left), job.name, ", ".join(job.rows))
            if status := _run(job, options):
                logger.error("%s: failed with status %d, see above; going on with the others", job.name, status)
                failed[job.name] = status
        try:
            _report(options, jobs[0].images)
        finally:
            for name, status in failed.items():
                print(f"failed with status {status}: {name}; the same command tries it again")  # noqa: T201
    return not failed


def _run(job: Job, options: AblationOptions) -> int:
    """Run a job in other processes, which end when this process is told to end. Return the exit status."""
    from tools.runs import local_processes

    command = [sys.executable, "-m", MODULE, *job.options.arguments(), *local_processes(options, job.config.train.device)]
    before = signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    try:
        with subprocess.Popen(command) as process:
            try:
                return process.wait()
            except BaseException:
                # Ctrl-C also reaches the job, SIGTERM does not; on both, the job saves and ends.
                process.terminate()
                raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _report(options: AblationOptions, images: int) -> None:
    """Write the comparison of all rows, including those that an earlier command ran, and the tables of all results."""
    from tables.make import PATIENCE, TablesConfig, make_tables
    from tools.ablation_runner.comparison import Compared, comparison_csv, comparison_full_csv, comparison_text
    from tools.summary import table_files, text_table

    finished = {}
    for recipe in dict.fromkeys(ROWS[options.table].values()):
        try:
            planned = _plan_recipe(recipe, options, images)
        except ValueError as error:
            logger.debug("%s was never run with these options, which it refuses: %s", recipe, error)
            planned = []
        finished[recipe] = [job for job in planned if job.finished]
    rows = []
    for (name, recipe), published in zip(ROWS[options.table].items(), published_rows(options.table), strict=True):
        results = {job.name: read_result(job.options.result) for job in finished[recipe]}
        changes = finished[recipe][0].departures if results else []
        rows.append(Compared(name, recipe, published, results, changes))
    path = options.output / f"ablation_{options.table}.csv"
    write_text_atomically(path, comparison_csv(rows))
    write_text_atomically(options.output / f"ablation_{options.table}_full.csv", comparison_full_csv(rows))
    print(f"{comparison_text(rows)}\n")  # noqa: T201 - the command's own output
    tables = make_tables(TablesConfig(runs=options.runs, output=options.output), PATIENCE)
    print(text_table(("what", "file"), [("ablation", str(path)), *table_files(tables)]))  # noqa: T201


def main(argv: Sequence[str]) -> int:
    return 0 if run_ablation(parse(AblationOptions, argv, PROG)) else 1


if __name__ == "__main__":
    run_command(main)
