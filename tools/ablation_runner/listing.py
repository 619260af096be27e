"""What `--dry-run` prints: the jobs, how far they are, and what they cost."""

from collections.abc import Sequence

from tools.ablation_runner.cost import Speed, Work, given_speed, measure_work, timed_speed
from tools.ablation_runner.job import has_begun, is_finished
from tools.ablation_runner.plan import Job
from tools.evaluation.summary import duration
from tools.text_table import text_table

_HEADINGS = ("job", "rows", "state", "epochs", "steps", "images", "GFLOP/image", "PFLOP", "time")
_RIGHT = _HEADINGS[3:]


def job_listing(jobs: Sequence[Job], images_per_second: float | None) -> str:
    """The jobs with their cost.

    Args:
        jobs: In their order.
        images_per_second: Of the first job; None to time it here.
    """
    # Seeds share their recipe's work.
    work_of = {job.options.recipe: measure_work(job.config, job.images) for job in jobs}
    first = jobs[0]
    first_work = work_of[first.options.recipe]
    if images_per_second is None:
        speed = timed_speed(first.config, first.name, first_work)
    else:
        speed = given_speed(images_per_second, first.name, first_work)
    lines = [_line(job, work_of[job.options.recipe], speed) for job in jobs]
    left = [work_of[job.options.recipe].flops for job in jobs if state(job) != "finished"]
    lines.append(("left to do", "", f"{len(left)} jobs", "", "", "", "", _peta(sum(left)), _time(sum(left), speed)))
    explanation = (
        f"Time: FLOPs of the pretraining over a speed: {speed.basis}. A job that has begun counts in full; the evaluation on DAVIS "
        "comes on top."
    )
    return f"{text_table(_HEADINGS, lines, _RIGHT)}\n\n{explanation}\n{_departures(jobs)}".rstrip()


def state(job: Job) -> str:
    """`finished`, `begun` or `new`."""
    if is_finished(job.options, job.images):
        return "finished"
    return "begun" if has_begun(job.options) else "new"


def _line(job: Job, work: Work, speed: Speed) -> tuple[str, ...]:
    return (
        job.name,
        ", ".join(job.rows),
        state(job),
        str(job.config.train.epochs),
        f"{work.steps:,}",
        f"{work.images:,}",
        f"{work.flops_per_image / 1e9:.1f}",
        _peta(work.flops),
        _time(work.flops, speed),
    )


def _peta(flops: float) -> str:
    peta = flops / 1e15
    return f"{peta:,.0f}" if peta >= 100 else f"{peta:.3g}"


def _time(flops: float, speed: Speed) -> str:
    return duration(flops / speed.flops_per_second)


def _departures(jobs: Sequence[Job]) -> str:
    lines = [
        f"{job.name} departs from its recipe: {', '.join(f'{name} {change}' for name, change in job.departures.items())}"
        for job in {job.options.recipe: job for job in jobs}.values()
        if job.departures
    ]
    return "\n".join(lines)
