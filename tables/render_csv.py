"""A table as CSV: full precision, and beside every figure its standing.

Columns: the descriptors; for each figure `KEY` and `KEY_status`; for each benchmark `NAME_items` (images or sequences of the test
split), `NAME_deviations` from the published protocol (JSON, setting -> [published, used]) and `NAME_result` (path below the folder of
runs), all empty in published rows; `backbone_sha256`; `source`; `note`.
"""

import csv
import io
import json

from tables.layout import BENCHMARKS, Task
from tables.rows import Row, Table


def render_csv(table: Table) -> str:
    """The whole file, with Unix line ends."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_header(table))
    for row in table.rows:
        writer.writerow(_cells(table, row))
    return stream.getvalue()


def _header(table: Table) -> list[str]:
    figures = [name for column in table.layout.columns for name in (column.key, f"{column.key}_status")]
    origins = [f"{BENCHMARKS[task]}_{part}" for task in table.layout.tasks for part in ("items", "deviations", "result")]
    return [*table.layout.descriptors, *figures, *origins, "backbone_sha256", "source", "note"]


def _cells(table: Table, row: Row) -> list[str]:
    figures: list[str] = []
    for column in table.layout.columns:
        cell = row.cells.get(column.key)
        figures += [cell.text, cell.status] if cell else ["", ""]
    origins = [text for task in table.layout.tasks for text in _origin(row, task)]
    digest = row.evaluated.any_result.backbone.sha256 if row.evaluated else ""
    return [*row.descriptors.values(), *figures, *origins, digest, row.source, row.note]


def _origin(row: Row, task: Task) -> tuple[str, str, str]:
    """Items, deviations and result path."""
    if row.evaluated is None or task not in row.evaluated.measurements:
        return "", "", ""
    measurement = row.evaluated.measurements[task]
    result = measurement.result
    deviations = json.dumps(result.protocol.deviations, sort_keys=True) if result.protocol.deviations else ""
    return str(result.datasets["test"].num_items), deviations, measurement.path
