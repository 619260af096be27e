"""Run the jobs of an ablation one after another, or submit them, and put the figures beside the published ones."""

import logging
import signal
import subprocess
import sys
from collections.abc import Sequence

from common.command import USER_ERROR
from common.files import write_text_atomically
from common.launch import Command, LaunchOptions, run_or_launch
from tables.make import TablesConfig, make_tables
from tools.ablation_runner.comparison import compare, comparison_csv, comparison_text
from tools.ablation_runner.job import MODULE, is_finished
from tools.ablation_runner.listing import job_listing
from tools.ablation_runner.plan import AblationOptions, Job, plan_jobs, plan_others
from tools.ablation_runner.rows import ROWS, Table, published_rows
from tools.evaluation.launching import launch_arguments, local_processes
from tools.evaluation.summary import table_files
from tools.text_table import text_table

logger = logging.getLogger("ablation")


def run_ablation(table: Table, options: AblationOptions, launching: LaunchOptions) -> bool:
    """Run, submit or list the jobs. Returns whether none failed.

    Args:
        table: Which ablation.
        options: The user's.
        launching: Where the jobs run.

    Raises:
        ValueError: If data is absent or an option does not fit; no job has been started then.
    """
    jobs = plan_jobs(table, options, look_only=launching.dry_run)
    if launching.dry_run:
        print(job_listing(jobs, options.images_per_second))  # noqa: T201 - the command's own output
        for job in jobs:
            print()  # noqa: T201
            _launch(job, launching)
        return True
    left = [job for job in jobs if not is_finished(job.options, job.images)]
    logger.info("%d jobs, %d of them finished already", len(jobs), len(jobs) - len(left))
    if launching.slurm and not options.report_only:
        for job in left:
            _launch(job, launching)
        print("when they have ended, the same command with --report-only in place of --slurm writes the tables")  # noqa: T201
        return True
    failed = {} if options.report_only else _run_all(left, launching)
    try:
        _report(table, options, jobs)
    finally:
        for name, status in failed.items():
            print(f"failed with status {status}: {name}; the same command tries it again")  # noqa: T201
    return not failed


def _run_all(jobs: Sequence[Job], launching: LaunchOptions) -> dict[str, int]:
    """Run jobs one after another, whether or not one fails. Returns the status of those that failed by name."""
    failed = {}
    for number, job in enumerate(jobs, start=1):
        logger.info("job %d of %d: %s, for the rows %s", number, len(jobs), job.name, ", ".join(job.rows))
        if status := _run(job, launching):
            logger.error("%s: failed with status %d, see above; going on with the others", job.name, status)
            failed[job.name] = status
    return failed


def _report(table: Table, options: AblationOptions, jobs: Sequence[Job]) -> None:
    """Print and write the comparison, over all rows whether or not this command ran them, and the tables of all results."""
    every_job = [*jobs, *plan_others(table, options, jobs)]
    rows = compare(ROWS[table], published_rows(table), every_job)
    path = options.output / f"ablation_{table}.csv"
    write_text_atomically(path, comparison_csv(rows))
    print(f"{comparison_text(rows)}\n")  # noqa: T201 - the command's own output
    tables = make_tables(TablesConfig(runs=options.runs, output=options.output))
    print(text_table(("what", "file"), [("ablation", str(path)), *table_files(tables)]))  # noqa: T201


def _run(job: Job, launching: LaunchOptions) -> int:
    """Run a job in processes of its own, which end when this one is asked to. Returns their status."""
    command = [sys.executable, "-m", MODULE, *job.options.arguments(), *local_processes(launching)]
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        with subprocess.Popen(command) as process:
            try:
                return process.wait()
            except BaseException:
                # Ctrl-C reaches the job by itself, SIGTERM does not; it saves and ends.
                process.terminate()
                raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(signum: int, frame: object) -> None:
    del frame
    raise SystemExit(128 + signum)


def _launch(job: Job, launching: LaunchOptions) -> None:
    """Submit a job, or print what would be started."""
    arguments = job.options.arguments()
    if launching.slurm:
        # Never here, since the options say so.
        run_or_launch(MODULE, [*arguments, *launch_arguments(launching)], lambda _: USER_ERROR)
    else:
        print(Command(module=MODULE, arguments=(*arguments, *local_processes(launching))))  # noqa: T201
