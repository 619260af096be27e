"""What the data doctor found."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal["missing", "damaged", "misnamed", "misplaced", "wrong", "note"]
"""`wrong`: readable, but contradicts itself or the benchmark. `note`: worth knowing; the tasks run in spite of it."""

State = Literal["absent", "problems", "sample data", "subset", "complete"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of trouble, with everything that it concerns."""

    kind: Kind
    """Which sort."""
    what: str
    """A phrase for the reader, such as `files are empty`."""
    names: tuple[str, ...] = ()
    """Whatever it concerns: files, annotations, sequences. Empty where the phrase says it all."""
    advice: str = ""
    """What to do."""

    @property
    def is_problem(self) -> bool:
        """Whether the task would stop at it, or give other figures than it should."""
        return self.kind != "note"


def count_of(found: int, full: int, unit: str) -> str:
    """Such as `2 of 30 sequences`, or `30 sequences` where that is all."""
    return f"{found:,} {unit}" if found == full else f"{found:,} of {full:,} {unit}"


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """How much of one split there is."""

    name: str
    """Such as `val2017`."""
    unit: str
    """What is counted, in the plural."""
    found: int
    """How many are there and listed."""
    full: int
    """How many the published split has."""
    also: str = ""
    """Further counts, for the reader."""
    also_full: bool = True
    """Whether those counts are the published ones too."""

    @property
    def is_full(self) -> bool:
        """Whether it is the published split, by its counts."""
        return self.found == self.full and self.also_full


@dataclass(frozen=True, kw_only=True)
class Download:
    """Where a part of a dataset comes from."""

    address: str
    """Official."""
    into: Path
    """Folder to unpack it in."""

    def __str__(self) -> str:
        """As a piece of advice."""
        return f"get {self.address} and unpack it in {self.into}"


@dataclass(kw_only=True)
class DatasetReport:
    """One dataset."""

    task: str
    """The task that needs it."""
    name: str
    """The dataset's."""
    data: Path
    """The folder given as `--data`."""
    folder: Path
    """Where the task looks for it, below that."""
    downloads: tuple[Download, ...]
    """Where all of it comes from."""
    asked: bool = False
    """Whether the user named its task."""
    examined: bool = True
    """False where the user named other tasks only."""
    present: bool = True
    """Whether any of it lies in its folder."""
    sample: bool = False
    """Whether `tools/make_sample_data.py` drew it."""
    splits: list[SplitReport] = field(default_factory=list)
    """How much there is."""
    findings: list[Finding] = field(default_factory=list)
    """What was found, the heaviest first once `sort` was called."""

    @property
    def problems(self) -> list[Finding]:
        """What the task would stop at or be misled by."""
        return [finding for finding in self.findings if finding.is_problem]

    @property
    def state(self) -> State:
        """In a word."""
        if self.problems:
            return "problems"
        if not self.present:
            return "absent"
        if self.sample:
            return "sample data"
        return "complete" if all(split.is_full for split in self.splits) else "subset"

    @property
    def is_usable(self) -> bool:
        """Whether the task can run on it."""
        return self.state not in ("absent", "problems")

    def add(self, kind: Kind, what: str, names: Iterable[str] = (), advice: str = "") -> None:
        """Add a finding that needs no names."""
        self.findings.append(Finding(kind=kind, what=what, names=tuple(names), advice=advice))

    def add_named(self, kind: Kind, what: str, names: Iterable[str], advice: str = "") -> None:
        """Add a finding about these names, if there are any."""
        if listed := tuple(names):
            self.add(kind, what, listed, advice)


@dataclass(frozen=True, kw_only=True)
class DoctorReport:
    """Everything."""

    data: Path
    """The folder."""
    deep: bool
    """Whether every file was decoded."""
    datasets: tuple[DatasetReport, ...]
    """One per task."""

    @property
    def is_healthy(self) -> bool:
        """Whether everything asked for is usable; where nothing was named, what is there, and that something is."""
        examined = [dataset for dataset in self.datasets if dataset.examined]
        if any(dataset.state == "problems" or (dataset.asked and not dataset.is_usable) for dataset in examined):
            return False
        return any(dataset.is_usable for dataset in examined)
