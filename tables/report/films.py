"""DAVIS as short films, the backbones side by side: each a strip of frames below each other, of which the page shows one."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image

from tables.report.artefacts import ArtefactError, artefact_path, page_path
from tables.report.groups import Entry, Group
from tables.report.pictures import OVER_LIMIT, PictureBudget, data_uri, open_picture

logger = logging.getLogger(__name__)

_FOLDERS = ("overlays", "masks")
"""Artefacts with a folder of frames per sequence, the better one first."""
_MOST_FRAMES = 16
_WIDTH = 320

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One backbone's frames of a sequence, or the reason why there are none."""

    entry: Entry
    """Whose."""
    shows: str
    """`overlays` or `masks`."""
    uri: str = ""
    """`data:` address of all frames below each other."""
    height: int = 0
    """Of a frame, in pixels."""
    problem: str = ""
    """Why there is no strip."""


@dataclass(frozen=True, kw_only=True)
class Film:
    """A sequence."""

    sequence: str
    """Its name."""
    frames: list[str]
    """Names of the frames that are shown."""
    num_frames: int
    """How many the sequence has."""
    strips: list[Strip]
    """One per backbone."""
    width: int = _WIDTH
    """Of a frame, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Films:
    """The films of a group."""

    films: list[Film]
    """By sequence."""
    left_out: list[str]
    """Sequences that are not among them."""


def evenly(items: Sequence[ItemT], count: int) -> list[ItemT]:
    """The middles of `count` equal parts; all items where there are no more."""
    count = min(count, len(items))
    return [items[(2 * part + 1) * len(items) // (2 * count)] for part in range(count)]


def make_films(group: Group, most: int, budget: PictureBudget) -> Films | None:
    """Films of some sequences, spread evenly over their names.

    Args:
        group: Of any task; those without folders of masks have no films.
        most: Sequences to show.
        budget: Loses their size.
    """
    entries = [entry for entry in group.entries if _artefact(entry)]
    if not entries:
        return None
    folders, problems = _sequence_folders(entries)
    sequences = sorted({name for found in folders.values() for name in found})
    shown = evenly(sequences, most)
    films = [_film(name, entries, folders, problems, budget) for name in shown]
    return Films(films=films, left_out=[name for name in sequences if name not in shown])


def _artefact(entry: Entry) -> str:
    """The artefact with the frames, empty where there is none."""
    return next((name for name in _FOLDERS if name in entry.result.artefacts), "")


def _sequence_folders(entries: Sequence[Entry]) -> tuple[dict[int, dict[str, Path]], dict[int, str]]:
    """Number of an entry -> sequence -> folder; and number -> why its folder cannot be read."""
    folders: dict[int, dict[str, Path]] = {}
    problems: dict[int, str] = {}
    for entry in entries:
        relative = entry.result.artefacts[_artefact(entry)]
        try:
            root = artefact_path(entry.measurement, relative)
            folders[entry.number] = {path.name: path for path in sorted(root.iterdir()) if path.is_dir()}
        except (ArtefactError, OSError) as error:
            reason = f"cannot be read ({error.strerror})" if isinstance(error, OSError) else str(error)
            problems[entry.number] = f"{page_path(entry.measurement, relative)} {reason}"
            logger.warning("%s; the report says so in its place", problems[entry.number])
    return folders, problems


def _film(
    sequence: str,
    entries: Sequence[Entry],
    folders: dict[int, dict[str, Path]],
    problems: dict[int, str],
    budget: PictureBudget,
) -> Film:
    names: dict[str, None] = {}
    for entry in entries:
        folder = folders.get(entry.number, {}).get(sequence)
        names.update(dict.fromkeys(path.stem for path in sorted(folder.glob("*.png"))) if folder else {})
    frames = evenly(sorted(names), _MOST_FRAMES)
    strips = []
    for entry in entries:
        shows = _artefact(entry)
        problem = problems.get(entry.number, "")
        folder = folders.get(entry.number, {}).get(sequence)
        if not problem and folder is None:
            problem = f"{page_path(entry.measurement, entry.result.artefacts[shows])} has no sequence {sequence}"
        if problem or folder is None:
            strips.append(Strip(entry=entry, shows=shows, problem=problem))
            continue
        strips.append(_strip(entry, shows, folder, frames, budget))
    return Film(sequence=sequence, frames=frames, num_frames=len(names), strips=strips)


def _strip(entry: Entry, shows: str, folder: Path, frames: Sequence[str], budget: PictureBudget) -> Strip:
    path = page_path(entry.measurement, f"{entry.result.artefacts[shows]}/{folder.name}")
    if not frames:
        return Strip(entry=entry, shows=shows, problem=f"{path} holds no frame")
    if budget.closed:
        budget.take(path, 0)
        return Strip(entry=entry, shows=shows, problem=f"{path} {OVER_LIMIT}")
    try:
        pictures = [_frame(folder / f"{name}.png") for name in frames]
    except ArtefactError as error:
        logger.warning("%s: %s; the report says so in its place", path, error)
        return Strip(entry=entry, shows=shows, problem=f"{path}: {error}")
    height = pictures[0].height
    strip = Image.new("RGB", (_WIDTH, height * len(pictures)))
    for number, picture in enumerate(pictures):
        strip.paste(picture, (0, number * height))
    uri = data_uri(strip)
    if not budget.take(path, len(uri)):
        return Strip(entry=entry, shows=shows, problem=f"{path} {OVER_LIMIT}")
    return Strip(entry=entry, shows=shows, uri=uri, height=height)


def _frame(path: Path) -> Image.Image:
    if not path.is_file():
        raise ArtefactError(f"{path.name} is missing")
    image = open_picture(path)
    return image.resize((_WIDTH, max(1, round(image.height * _WIDTH / image.width))), reducing_gap=2.0)
