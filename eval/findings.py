"""What a look at a data set found, for `python -m eval`, which refuses it, and for `tools/check_data.py`, which lists everything."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

Kind = Literal["missing", "misplaced", "damaged", "wrong", "subset", "note"]
"""`missing`: a file or folder is not there; `misplaced`: it is in another folder;
`damaged`: it cannot be read; `wrong`: it can, but does not fit the data set. Two kinds are no problems: `subset`, a split has fewer
items than the published one, or other ones; and `note`, something to know."""

_SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """One kind of problem, or a note, in one line; `advice` says in another one what to do.

    `names` are the files or entries concerned, relative to the data set; empty where `text` names the only one.
    """

    kind: Kind
    text: str
    names: tuple[str, ...] = ()
    advice: str = ""

    @property
    def is_problem(self) -> bool:
        """Whether the task refuses the data set for it."""
        return self.kind not in ("subset", "note")

    def __str__(self) -> str:
        named = f": {first_few(self.names, _SHOWN)}" if self.names else ""
        return f"{self.text}{named}" + (f"; {self.advice}" if self.advice else "")


def first_few(names: Iterable[str], shown: int) -> str:
    """Names in one line, those beyond the first few as a number."""
    first, rest = (listed := list(names))[:shown], len(listed) - shown
    return ", ".join(first) + (f" and {rest} more" if rest > 0 else "")


def refuse(findings: Iterable[Finding], place: Path | None = None) -> None:
    """Raise ValueError with all problems among the findings in one line, after the name of the place where there is one."""
    if problems := [str(finding) for finding in findings if finding.is_problem]:
        raise ValueError((f"{place}: " if place else "") + "; ".join(problems))


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """The same findings, those that differ only in their names as one."""
    names: dict[Finding, list[str]] = {}
    for finding in findings:
        names.setdefault(replace(finding, names=()), []).extend(finding.names)
    return [replace(finding, names=tuple(listed)) for finding, listed in names.items()]


def about(kind: Kind, text: str, names: Iterable[str], advice: str = "") -> list[Finding]:
    """A finding about these names, or none where there are none."""
    listed = tuple(names)
    return [Finding(kind, text, listed, advice)] if listed else []
