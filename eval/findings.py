"""What a look at a data set found, for `python -m eval`, which refuses it, and for `tools/check_data.py`, which lists everything."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

Kind = Literal["missing", "misplaced", "misnamed", "damaged", "wrong", "subset", "note"]

_SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """One kind of problem, or a note."""

    kind: Kind
    """`missing`: a file or folder is not there; `misplaced`: it is in another folder; `misnamed`: its ending is another one;
    `damaged`: it cannot be read; `wrong`: it can, but does not fit the data set. Two kinds are no problems: `subset`, a split has
    fewer items than the published one, or other ones; and `note`, something to know."""
    text: str
    """What is the matter, in one line."""
    names: tuple[str, ...] = ()
    """Files or entries concerned, relative to the data set; empty where `text` names the only one."""
    advice: str = ""
    """What to do, in one line."""

    @property
    def is_problem(self) -> bool:
        """Whether the task refuses the data set for it."""
        return self.kind not in ("subset", "note")

    def __str__(self) -> str:
        """One line that names the first few files."""
        shown = ", ".join(self.names[:_SHOWN]) + (f" and {len(self.names) - _SHOWN} more" if len(self.names) > _SHOWN else "")
        return "".join((self.text, f": {shown}" if shown else "", f"; {self.advice}" if self.advice else ""))


def refuse(findings: Iterable[Finding], place: Path | None = None) -> None:
    """Raise ValueError with all problems among the findings in one line, after the name of the place where there is one."""
    if problems := [str(one) for one in findings if one.is_problem]:
        raise ValueError((f"{place}: " if place else "") + "; ".join(problems))


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """The same findings, those that differ only in their names as one."""
    names: dict[Finding, tuple[str, ...]] = {}
    for one in findings:
        kind = replace(one, names=())
        names[kind] = names.get(kind, ()) + one.names
    return [replace(kind, names=listed) for kind, listed in names.items()]


def about(kind: Kind, text: str, names: Iterable[str], advice: str = "") -> list[Finding]:
    """A finding about these names, or none where there are none."""
    listed = tuple(names)
    return [Finding(kind, text, listed, advice)] if listed else []
