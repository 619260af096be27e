"""What a look at a data set found, for `python -m eval`, which refuses it, and for `tools/check_data.py`, which lists everything."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

_SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """One kind of problem, or a note."""

    kind: Literal["missing", "damaged", "wrong", "note"]
    """`missing`: a file or folder is not there; `damaged`: it cannot be read; `wrong`: it can, but does not fit the data set; `note`:
    no problem, but something to know, such as a part of the published images."""
    text: str
    """What is the matter, in one line."""
    names: tuple[str, ...] = ()
    """Files or entries concerned, relative to the data set; empty where `text` names the only one."""
    advice: str = ""
    """What to do, in one line."""

    def __str__(self) -> str:
        """One line that names the first few files."""
        shown = ", ".join(self.names[:_SHOWN]) + (f" and {len(self.names) - _SHOWN} more" if len(self.names) > _SHOWN else "")
        return "".join((self.text, f": {shown}" if shown else "", f"; {self.advice}" if self.advice else ""))


def refuse(findings: Iterable[Finding]) -> None:
    """Raise ValueError with all problems among the findings in one line; notes do not count."""
    if problems := [str(one) for one in findings if one.kind != "note"]:
        raise ValueError("; ".join(problems))
