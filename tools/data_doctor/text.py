"""The report for people."""

import textwrap
from collections.abc import Iterator

from tools.data_doctor.report import DatasetReport, DoctorReport, Finding, count_of

_WIDTH = 110
_INDENT = 13

_RED, _GREEN, _YELLOW, _BOLD, _PLAIN = "\033[31m", "\033[32m", "\033[33m", "\033[1m", "\033[0m"


def render(report: DoctorReport, names_shown: int, colours: bool) -> str:
    """The report as text, ending without a line break.

    Args:
        report: Of the doctor.
        names_shown: At most so many names per finding.
        colours: Whether the terminal shows them.
    """
    lines = []
    for dataset in report.datasets:
        lines += [*_dataset(dataset, names_shown, colours), ""]
    return "\n".join([*lines, *_summary(report)])


def _dataset(dataset: DatasetReport, names_shown: int, colours: bool) -> Iterator[str]:
    title = f"{dataset.name} ({dataset.task}), {dataset.folder}"
    state, colour = _state(dataset)
    yield f"{_BOLD}{title}{_PLAIN}: {colour}{state}{_PLAIN}" if colours else f"{title}: {state}"
    for split in dataset.splits:
        counts = count_of(split.found, split.full, split.unit)
        remark = "" if split.is_full or dataset.sample else ": a subset"
        yield _entry(split.name, ", ".join(part for part in (counts, split.also) if part) + remark)
    for finding in dataset.findings:
        yield from _finding(finding, names_shown)
    if dataset.examined and not dataset.present and not dataset.problems:
        for download in dataset.downloads:
            yield f"{'':{_INDENT}}-> {download}"


def _state(dataset: DatasetReport) -> tuple[str, str]:
    if not dataset.examined:
        return ("there, not examined" if dataset.present else f"absent; it comes from {dataset.downloads[0].address}"), ""
    if dataset.state == "absent":
        return "absent", _RED if dataset.asked else ""
    if dataset.state == "problems":
        number = len(dataset.problems)
        return f"{number} problem{'s' if number > 1 else ''}", _RED
    words = {"complete": "complete, usable", "subset": "a subset, usable", "sample data": "generated sample data, usable"}
    return words[dataset.state], _GREEN if dataset.state == "complete" else _YELLOW


def _finding(finding: Finding, names_shown: int) -> Iterator[str]:
    text = f"{finding.what} ({len(finding.names):,})" if finding.names else finding.what
    if finding.names and names_shown:
        hidden = len(finding.names) - names_shown
        text += f": {', '.join(finding.names[:names_shown])}{', ...' if hidden > 0 else ''}"
    yield _entry(finding.kind, text)
    if finding.advice:
        yield f"{'':{_INDENT}}-> {finding.advice}"  # on one line, so that commands can be copied


def _entry(label: str, text: str) -> str:
    wrapped = textwrap.wrap(text, _WIDTH - _INDENT, break_long_words=False, break_on_hyphens=False)
    first, *rest = wrapped or [""]
    return "\n".join([f"  {label:<{_INDENT - 2}}{first}", *(f"{'':{_INDENT}}{line}" for line in rest)])


def _summary(report: DoctorReport) -> Iterator[str]:
    examined = [dataset for dataset in report.datasets if dataset.examined]
    usable = [dataset.name for dataset in examined if dataset.is_usable]
    yield f"usable: {', '.join(usable) if usable else 'none'}"
    if broken := [dataset.name for dataset in examined if dataset.state == "problems"]:
        yield f"to repair: {', '.join(broken)}"
    if absent := [dataset.name for dataset in examined if dataset.state == "absent"]:
        yield f"absent: {', '.join(absent)}"
    if report.deep:
        yield "every file was decoded"
    else:
        yield "files were checked by header and end, DAVIS' masks and some ADE20K label maps by content; --deep decodes everything"
