"""The evaluation tasks: the one place that lists them.

To add a task: its folder, its `TASK` in the list here, its reference CSV in `tables/reference/`, its page in the docs. The folder
`eval/NAME` has

    __init__.py `TASK`, what others need to know of it (see `eval.registry`), with what several of them share from `eval.shared`
    config.py   `NameConfig`, a dataclass of the options, for the task `name`; loads no torch
    task.py     `check(config, spec)` and `evaluate(config) -> Result`
    data.py     `examine(folder, deep, jobs) -> list[Finding]`, the data check (see `eval.findings`); loads no torch
    items.py    `read_items(result, folder) -> (names, means, metrics_of) | None`, for significance: the names of the N test items,
                ascending; {metric: values [N]} of the metrics that are means over them, NaN where an item does not count;
                and, for the others, None or a function from weights [R, N] of the items in R resampled sets to {metric: values [R]}

Where several tasks have the same data check or items, `Task.shared` names the module in place of a file of their own. All but
the first are imported on demand, so that reading this registry loads neither torch nor OpenMMLab.
"""

from eval import (
    classification,
    copy_detection,
    davis,
    depth,
    detection,
    jhmdb,
    linear_segmentation,
    object_discovery,
    retrieval,
    retrieval_segmentation,
    segmentation,
    vip,
)

_ALL = (
    davis.TASK,
    detection.TASK,
    segmentation.TASK,
    classification.TASK,
    linear_segmentation.TASK,
    depth.TASK,
    vip.TASK,
    jhmdb.TASK,
    retrieval_segmentation.TASK,
    retrieval.TASK,
    copy_detection.TASK,
    object_discovery.TASK,
)

TASKS = {task.name: task for task in _ALL}
BENCHMARKS = {benchmark.key: benchmark for task in _ALL for benchmark in task.benchmarks}

GROUPS = {"frozen": ("classification", "linear_segmentation", "retrieval_segmentation", "davis")}
"""Names that stand for several tasks, each of which runs where its data is there."""


def named_tasks(names: str) -> list[str]:
    """The tasks in a text, by their names or those of `GROUPS`, separated by commas; ValueError for an unknown name, or for none."""
    named = _names(names)
    unknown = [name for name in named if name not in TASKS and name not in GROUPS]
    if unknown or not named:
        problem = f"unknown {', '.join(unknown)}" if unknown else f"{names!r} names no task"
        raise ValueError(f"--tasks: {problem}; tasks: {', '.join((*TASKS, *GROUPS))}")
    return list(dict.fromkeys(task for name in named for task in GROUPS.get(name, (name,))))


def optional_tasks(names: str) -> set[str]:
    """The tasks in a text that only a group names."""
    named = _names(names)
    return {task for name in named for task in GROUPS.get(name, ())}.difference(named)


def _names(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]
