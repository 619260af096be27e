"""What the commands, the tables and the data doctor need to know of a task. The tasks themselves are in `eval.tasks`."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Column:
    """A metric in the tables: the key of its benchmark, its names in the CSV files, on the page as papers print it, in the result."""

    benchmark: str
    key: str
    heading: str
    metric: str  # empty for published figures by a protocol that no task has
    unit: str = "percent"
    decimals: int = 1  # that the pages print
    higher_is_better: bool = True
    dataset: str = ""
    """The data set and the split of all its figures, such as `ADE20K validation`, which its heading then names; empty where the
    benchmark has only one, or the table a row for each."""

    @property
    def place(self) -> str:
        """Benchmark and data set: how the names of the CSV files' columns begin that are about one result."""
        return self.key.rpartition("_")[0] if self.dataset else self.benchmark


class Chart(NamedTuple):
    """Values per item, such as a class or a sequence, that the report draws under the title."""

    metric: str  # name in the result's breakdown
    overall: str  # name of the metric over all items
    title: str


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Metrics with columns of their own: those of one task under one protocol, and for classification those of one classifier."""

    key: str  # what the columns of the CSV files call it
    title: str  # name on the page, such as `COCO`
    task: str
    protocol: str  # its name in the results
    items: str  # what one item of the test split is, in the plural
    columns: tuple[Column, ...] = ()  # those that do not depend on the results
    metric_pattern: str = ""  # regular expression of the metrics that have columns where the results have them
    any_dataset: bool = False  # measured on any data set, with one row per data set
    footnotes: Mapping[str, str] = field(default_factory=dict)
    """Deviations that leave a benchmark number comparable, each with the footnote that such a number gets: those of settings in which
    the network is evaluated as it was pretrained."""
    unrelated_settings: str = ""
    """Regular expression of the protocol's settings that cannot change its metrics, where results hold several benchmarks."""
    charts: tuple[Chart, ...] = ()
    """What the report draws; where `metric_pattern` is set, it draws the breakdown of one metric of that pattern instead."""


class Download(NamedTuple):
    """An archive of a data set: where to unpack it and what is there then, both below `--data`."""

    address: str
    into: str
    brings: str


class DataSet(NamedTuple):
    """A further set that a task can run on: the fields of a task that describe its data."""

    folder: str
    dataset: str
    downloads: tuple[Download, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the commands, the tables and the data doctor need to know of a task."""

    name: str  # what `python -m eval NAME` calls it
    summary: str  # first line of its `--help`
    folder: str  # of its data set below `--data`
    dataset: str
    downloads: tuple[Download, ...]
    signs: tuple[str, ...]  # paths in the data set by which a copy in another folder is recognised
    benchmarks: tuple[Benchmark, ...]
    default_options: tuple[str, ...] = ()  # those that `eval_all.sh` takes unless the user gives others
    sample_options: tuple[str, ...] = ()  # make it run in about a minute on sample data
    fine_tunes: bool = False  # it trains the whole network; other tasks leave it frozen
    in_main_table: bool = True  # `eval_all.sh` runs it unless tasks are named
    further_sets: tuple[DataSet, ...] = ()
    shared: Mapping[str, str] = field(default_factory=dict)
    """`data` or `items` -> the module that stands for the file of this name in its folder, where several tasks have the same."""

    def on_each_set(self) -> "list[Task]":
        """The task with each of its data sets, its own first."""
        return [self, *(replace(self, **found._asdict(), further_sets=()) for found in self.further_sets)]

    def load(self, file: str, name: str) -> Any:
        """What the file of this name in the task's folder, or what is shared in its place, calls `name`."""
        return getattr(importlib.import_module(self.shared.get(file, f"eval.{self.name}.{file}")), name)

    @property
    def config(self) -> type[Any]:
        """The dataclass of its options."""
        name = "".join(part.capitalize() for part in self.name.split("_"))
        config: type[Any] = self.load("config", f"{name}Config")
        return config


def columns_of(benchmark: str, metrics: tuple[tuple[str, str, str], ...]) -> tuple[Column, ...]:
    return tuple(Column(benchmark, f"{benchmark}_{key}", heading, metric) for key, heading, metric in metrics)
