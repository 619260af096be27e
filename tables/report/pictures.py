"""Pictures inside the page, as far as the limit on its size allows; what is left out is named."""

import base64
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from tables.report.artefacts import ArtefactError, artefact_path, page_path
from tables.report.groups import Entry, Group

logger = logging.getLogger(__name__)

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".webp")
CURVES_ARTEFACT = "training_curves"
"""A picture that the report draws itself, from the log."""

OVER_LIMIT = "is beyond the limit on pictures (--max-picture-mb)"

_WIDEST = 1040
"""Pixels; wider pictures are reduced. The pictures of predictions have two panels of 512 pixels."""
_QUALITY = 78
_MEGA = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """A picture on the page, or the reason why it is not there."""

    title: str
    """What it shows."""
    path: str
    """Below the folder of runs."""
    uri: str = ""
    """`data:` address; empty where there is a problem."""
    width: int = 0
    """Pixels."""
    height: int = 0
    """Pixels."""
    problem: str = ""
    """Why it is left out; empty where it is there."""


@dataclass(kw_only=True)
class PictureBudget:
    """What is left of the megabytes for pictures. The first that does not fit closes it: what comes later is not even drawn."""

    limit_mb: float
    """Millions of characters of `data:` addresses."""
    used: int = 0
    """Characters so far."""
    closed: bool = False
    """Whether a picture did not fit."""
    omitted: list[str] = field(default_factory=list)
    """Paths of what was left out for want of room."""

    def take(self, path: str, size: int) -> bool:
        """Whether a picture of so many characters still fits; then it counts."""
        self.closed = self.closed or self.used + size > self.limit_mb * _MEGA
        if self.closed:
            self.omitted.append(path)
        else:
            self.used += size
        return not self.closed


def data_uri(image: Image.Image) -> str:
    """A picture as WebP."""
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=_QUALITY, method=4)
    return _uri("webp", stream.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def open_picture(path: Path) -> Image.Image:
    """Decode a picture.

    Raises:
        ArtefactError: If it is damaged.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        raise ArtefactError(f"cannot be read ({' '.join(str(error).split())})") from error


def embed(path: Path, title: str, shown_path: str, budget: PictureBudget) -> Embedded:
    """Put a picture into the page: animated GIFs as they are, others as WebP of limited width.

    Args:
        path: The file.
        title: What it shows.
        shown_path: What the page calls the file.
        budget: Loses the picture's size.

    Raises:
        ArtefactError: If the file is damaged.
    """
    if budget.closed:
        budget.take(shown_path, 0)
        return Embedded(title=title, path=shown_path, problem=OVER_LIMIT)
    image = open_picture(path)
    if path.suffix.lower() == ".gif":
        uri = _uri("gif", path.read_bytes())
    else:
        if image.width > _WIDEST:
            image = image.resize((_WIDEST, max(1, round(image.height * _WIDEST / image.width))), reducing_gap=2.0)
        uri = data_uri(image)
    if not budget.take(shown_path, len(uri)):
        return Embedded(title=title, path=shown_path, problem=OVER_LIMIT)
    return Embedded(title=title, path=shown_path, uri=uri, width=image.width, height=image.height)


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The pictures of one result."""

    entry: Entry
    """Whose."""
    pictures: list[Embedded]
    """In the order of the result's artefacts."""


def galleries(groups: Sequence[Group], budget: PictureBudget) -> dict[str, list[Gallery]]:
    """Pictures among the artefacts of all results, by the anchor of their group.

    Every result gets its first picture before any gets its second, so that a limit cuts all alike.
    """
    # A classification result is in two groups; the first one shows its pictures.
    home = {entry.number: group.anchor for group in reversed(groups) for entry in group.entries}
    entries = [entry for group in groups for entry in group.entries if home[entry.number] == group.anchor]
    names = {entry.number: _picture_artefacts(entry) for entry in entries}
    found: dict[int, list[Embedded]] = {entry.number: [] for entry in entries}
    for turn in range(max(map(len, names.values()), default=0)):
        for entry in entries:
            if turn < len(names[entry.number]):
                found[entry.number].append(_embed_artefact(entry, names[entry.number][turn], budget))
    return {
        group.anchor: [
            Gallery(entry=entry, pictures=found[entry.number])
            for entry in group.entries
            if found[entry.number] and home[entry.number] == group.anchor
        ]
        for group in groups
    }


def _picture_artefacts(entry: Entry) -> list[str]:
    artefacts = entry.result.artefacts
    return [name for name, path in artefacts.items() if path.lower().endswith(PICTURE_SUFFIXES) and name != CURVES_ARTEFACT]


def _embed_artefact(entry: Entry, name: str, budget: PictureBudget) -> Embedded:
    relative = entry.result.artefacts[name]
    shown_path = page_path(entry.measurement, relative)
    try:
        return embed(artefact_path(entry.measurement, relative), name, shown_path, budget)
    except ArtefactError as error:
        logger.warning("%s %s; the report says so in its place", shown_path, error)
        return Embedded(title=name, path=shown_path, problem=str(error))
