"""What is said of every result beside the tables: where it lies, what it was measured on and how."""

import json
from collections.abc import Sequence

from eval.result import Dataset, Result
from tables.collect import Evaluated, Measurement, slots_of
from tables.rows import Status, standing

VERDICTS: dict[Status, str] = {
    "published": "published",
    "measured": "whole benchmark, published protocol",
    "measured-deviating": "**deviating protocol: not a benchmark number**",
    "measured-subset": "**part of the benchmark: not a benchmark number**",
    "measured-sample": "**sample data: not a benchmark number**",
}


def numbered(evaluated: Sequence[Evaluated]) -> dict[str, int]:
    """Path of every result -> number of its note, in the order of the rows."""
    paths = [measurement.path for one in evaluated for measurement in one.measurements]
    return {path: number for number, path in enumerate(paths, start=1)}


def note(measurement: Measurement) -> str:
    """One result's note in Markdown, on one line."""
    result = measurement.result
    standings = {standing(result, slot.benchmark): slot.benchmark for slot in slots_of(result)}
    verdicts = [VERDICTS[status] + (f" ({benchmark})" if len(standings) > 1 else "") for status, benchmark in standings.items()]
    data = "; ".join(_data(role, dataset) for role, dataset in sorted(result.datasets.items()))
    return f"{code(measurement.path)}: {', '.join(verdicts)}. {data}. {_protocol(result)}. {_seeds(result)}."


def _data(role: str, dataset: Dataset) -> str:
    verb = {"test": "Tested", "train": "trained"}.get(role, role)
    name = f"{plain(dataset.name)} {plain(dataset.split)}"
    match dataset.coverage:
        case "full":
            return f"{verb} on {name}, whole: {dataset.num_items} items"
        case "subset":
            return f"{verb} on a part of {name}: {dataset.num_items} items"
        case "sample":
            return f"{verb} on sample data in the format of {name}: {dataset.num_items} items"


def _protocol(result: Result) -> str:
    protocol = f"Protocol {code(result.protocol.name)} version {result.protocol.version}"
    if not result.protocol.deviations:
        return f"{protocol} as published"
    changes = [
        f"{code(name)} {code(json.dumps(used))} instead of {code(json.dumps(published))}"
        for name, (published, used) in sorted(result.protocol.deviations.items())
    ]
    return f"{protocol} with {', '.join(changes)}"


def _seeds(result: Result) -> str:
    pretraining = result.backbone.source.get("seed", -1)
    before = f", of the pretraining {pretraining}" if pretraining >= 0 else ""
    return f"Seed {result.seed}{before}"


def plain(text: str) -> str:
    """Text that stays in its cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def code(text: str) -> str:
    """A code span that stays in its cell, whatever the user called things."""
    inline = plain(text)
    if not inline:
        return ""
    fence = "``" if "`" in inline else "`"
    padding = " " if inline.startswith("`") or inline.endswith("`") else ""
    return f"{fence}{padding}{inline}{padding}{fence}"
