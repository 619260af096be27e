"""Results that one chart may compare, by the rules of `tables.comparability`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eval.result import Dataset, Result
from tables.collect import Evaluated, Measurement
from tables.comparability import deviations_of, differences, facts
from tables.layout import BENCHMARKS, Benchmark, benchmarks_of
from tables.rows import Status, standing


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A measurement and its number on the page."""

    number: int
    """The same as that of its note in the Markdown tables."""
    measurement: Measurement
    """The result and where it lies."""

    @property
    def result(self) -> Result:
        """The result."""
        return self.measurement.result

    @property
    def name(self) -> str:
        """Of the backbone."""
        return self.result.backbone.name

    @property
    def anchor(self) -> str:
        """Of its record on the page."""
        return f"r{self.number}"


@dataclass(frozen=True, kw_only=True)
class Group:
    """Comparable results of one benchmark."""

    benchmark: Benchmark
    """Whose figures."""
    entries: list[Entry]
    """By number."""

    @property
    def anchor(self) -> str:
        """Of its section: the benchmark and the group's first result."""
        return f"{self.benchmark.key}-{self.entries[0].number}"

    @property
    def title(self) -> str:
        """Benchmark and split."""
        data = f"{self.data.name} {self.data.split}"
        return data if data.startswith(self.benchmark.title) else f"{self.benchmark.title}: {data}"

    @property
    def data(self) -> Dataset:
        """What all of them were tested on."""
        return self.entries[0].result.datasets["test"]

    @property
    def protocol(self) -> str:
        """Name and version of the protocol of all of them."""
        protocol = self.entries[0].result.protocol
        return f"{protocol.name} version {protocol.version}"

    @property
    def deviations(self) -> list[str]:
        """Settings in which all of them differ alike from the published protocol."""
        return sorted(deviations_of(self.entries[0].result, self.benchmark.key))

    def differences(self, other: "Group") -> list[str]:
        """Why the results of two groups of one benchmark may not be compared."""
        return [str(one) for one in differences(other.entries[0].result, self.entries[0].result, self.benchmark.key)]

    def status(self, entry: Entry) -> Status:
        """What an entry's figures for the benchmark are worth."""
        return standing(entry.result, self.benchmark.key)


def number_entries(evaluated: Sequence[Evaluated], numbers: Mapping[str, int]) -> list[Entry]:
    """Every measurement once, by its number.

    Args:
        evaluated: Everything that was measured.
        numbers: Path of a result -> number, from `tables.notes.numbered`.
    """
    by_path = {measurement.path: measurement for one in evaluated for measurement in one.measurements}
    return [Entry(number=number, measurement=by_path[path]) for path, number in numbers.items()]


def group_entries(entries: Sequence[Entry]) -> list[Group]:
    """Comparable results together, in the order of the benchmarks, then of their first result."""
    groups: dict[tuple[int, tuple[tuple[str, str], ...]], list[Entry]] = {}
    for entry in entries:
        for benchmark in benchmarks_of(entry.result):
            conditions = tuple(sorted(facts(entry.result, benchmark.key).items()))
            groups.setdefault((BENCHMARKS.index(benchmark), conditions), []).append(entry)
    ordered = sorted(groups.items(), key=lambda item: (item[0][0], item[1][0].number))
    return [Group(benchmark=BENCHMARKS[index], entries=members) for (index, _), members in ordered]
