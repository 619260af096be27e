"""Images inside the page, as far as the limit on their size allows: the artefacts of results, and DAVIS as short films.

What is left out is named in its place. A film is a strip of frames below each other, of which the page shows one.
"""

import base64
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image, UnidentifiedImageError

from tables.collect import Measurement
from tables.report.data import Entry, Group, page_path

logger = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")

_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".webp")
_CURVES_ARTEFACT = "training_curves"
"""An image that the report draws itself, from the log."""
_WIDEST = 1040
"""Pixels; wider images are reduced. The images of predictions have two panels of 512 pixels."""
_QUALITY = 78
_MEGA = 1_000_000

_FRAME_FOLDERS = ("overlays", "masks")
"""Artefacts with a folder of frames per sequence, the better one first."""
_MOST_FRAMES = 16
FRAME_WIDTH = 320


class ArtefactError(ValueError):
    """An artefact that the report cannot show; the text says why."""


@dataclass(kw_only=True)
class PictureBudget:
    """What is left of the megabytes for images. The first that does not fit closes it: what comes later is not even decoded."""

    limit_mb: float
    """Millions of characters of `data:` addresses."""
    used: int = 0
    """Characters so far."""
    closed: bool = False
    """Whether an image did not fit."""
    omitted: list[str] = field(default_factory=list)
    """Paths of what was left out for want of room."""

    def take(self, path: str, size: int = 0) -> None:
        """Count the characters of an image.

        Raises:
            ArtefactError: If it does not fit.
        """
        self.closed = self.closed or self.used + size > self.limit_mb * _MEGA
        if self.closed:
            self.omitted.append(path)
            raise ArtefactError("is beyond the limit on pictures (--max-picture-mb)")
        self.used += size


def artefact_path(measurement: Measurement, relative: str) -> Path:
    """The path of an artefact.

    Raises:
        ArtefactError: If it is missing or outside its result's folder, from which a page that people pass on must take nothing.
    """
    folder = measurement.folder.resolve()
    path = (folder / relative).resolve()
    if not path.is_relative_to(folder):
        raise ArtefactError("lies outside its result's folder")
    if not path.exists():
        raise ArtefactError("is missing")
    return path


def galleries(groups: Sequence[Group], budget: PictureBudget) -> dict[str, list[dict[str, Any]]]:
    """Images among the artefacts of all results, by the anchor of their group: `entry` and `pictures` of each.

    Every result gets its first image before any gets its second, so that a limit cuts all alike.
    """
    # A classification result is in two groups; the first one shows its images.
    home: dict[int, str] = {}
    shown: dict[str, list[dict[str, Any]]] = {group.anchor: [] for group in groups}
    for group in groups:
        for entry in group.entries:
            if home.setdefault(entry.number, group.anchor) == group.anchor and _image_artefacts(entry):
                shown[group.anchor].append({"entry": entry, "pictures": []})
    every = [one for of_group in shown.values() for one in of_group]
    for turn in range(max((len(_image_artefacts(one["entry"])) for one in every), default=0)):
        for one in every:
            for name in _image_artefacts(one["entry"])[turn : turn + 1]:
                one["pictures"].append(_embed(one["entry"], name, budget))
    return shown


def _image_artefacts(entry: Entry) -> list[str]:
    artefacts = entry.result.artefacts
    return [name for name, path in artefacts.items() if path.lower().endswith(_SUFFIXES) and name != _CURVES_ARTEFACT]


def _embed(entry: Entry, name: str, budget: PictureBudget) -> dict[str, Any]:
    """An artefact inside the page: animated GIFs as they are, others as WebP of limited width; `problem` says why it is missing."""
    relative = entry.result.artefacts[name]
    shown_path = page_path(entry.measurement, relative)
    picture = {"title": name, "path": shown_path, "uri": "", "problem": ""}
    try:
        path = artefact_path(entry.measurement, relative)
        if budget.closed:
            budget.take(shown_path)
        image = _open(path)
        if path.suffix.lower() == ".gif":
            uri = _uri("gif", path.read_bytes())
        else:
            image = _resize(image, min(_WIDEST, image.width))
            uri = _webp(image)
        budget.take(shown_path, len(uri))
        return {**picture, "uri": uri, "width": image.width, "height": image.height}
    except ArtefactError as error:
        return {**picture, "problem": _logged(shown_path, str(error), budget)}


def make_films(group: Group, most: int, budget: PictureBudget) -> dict[str, Any] | None:
    """Films of some sequences, spread evenly over their names, and the names of the others; None without folders of masks."""
    kinds = {
        entry.number: next((name for name in _FRAME_FOLDERS if name in entry.result.artefacts), "") for entry in group.entries
    }
    entries = [entry for entry in group.entries if kinds[entry.number]]
    if not entries:
        return None
    roots: dict[int, str] = {}
    folders: dict[int, dict[str, Path]] = {}
    problems: dict[int, str] = {}
    for entry in entries:
        relative = entry.result.artefacts[kinds[entry.number]]
        roots[entry.number] = page_path(entry.measurement, relative)
        try:
            children = sorted(artefact_path(entry.measurement, relative).iterdir())
            folders[entry.number] = {path.name: path for path in children if path.is_dir()}
        except (ArtefactError, OSError) as error:
            reason = f"cannot be read ({error.strerror})" if isinstance(error, OSError) else str(error)
            problems[entry.number] = f"{roots[entry.number]} {_logged(roots[entry.number], reason, budget)}"
    sequences = sorted({name for found in folders.values() for name in found})
    shown = evenly(sequences, most)
    films = []
    for sequence in shown:
        of_sequence = {number: found[sequence] for number, found in folders.items() if sequence in found}
        names = sorted({path.stem for folder in of_sequence.values() for path in folder.glob("*.png")})
        frames = evenly(names, _MOST_FRAMES)
        strips = []
        for entry in entries:
            strip = {"entry": entry, "shows": kinds[entry.number], "uri": "", "height": 0}
            problem = problems.get(entry.number, "")
            if not problem and entry.number not in of_sequence:
                problem = f"{roots[entry.number]} has no sequence {sequence}"
            if not problem:
                shown_path = f"{roots[entry.number]}/{sequence}"
                try:
                    strip["uri"], strip["height"] = _strip(of_sequence[entry.number], frames, shown_path, budget)
                except ArtefactError as error:
                    problem = f"{shown_path} {_logged(shown_path, str(error), budget)}"
            strips.append({**strip, "problem": problem})
        films.append({"sequence": sequence, "frames": frames, "num_frames": len(names), "strips": strips, "width": FRAME_WIDTH})
    return {"films": films, "left_out": [name for name in sequences if name not in shown]}


def _strip(folder: Path, frames: Sequence[str], shown_path: str, budget: PictureBudget) -> tuple[str, int]:
    """The `data:` address of a sequence's frames below each other, and the height of one in pixels."""
    if not frames:
        raise ArtefactError("holds no frame")
    if budget.closed:
        budget.take(shown_path)
    images = []
    for name in frames:
        path = folder / f"{name}.png"
        if not path.is_file():
            raise ArtefactError(f"has no frame {path.name}")
        images.append(_resize(_open(path), FRAME_WIDTH))
    height = images[0].height
    strip = Image.new("RGB", (FRAME_WIDTH, height * len(images)))
    for number, image in enumerate(images):
        strip.paste(image, (0, number * height))
    uri = _webp(strip)
    budget.take(shown_path, len(uri))
    return uri, height


def evenly(items: Sequence[ItemT], count: int) -> list[ItemT]:
    """The middles of `count` equal parts; all items where there are no more."""
    count = min(count, len(items))
    return [items[(2 * part + 1) * len(items) // (2 * count)] for part in range(count)]


def _logged(shown_path: str, problem: str, budget: PictureBudget) -> str:
    """The problem, logged unless it is the limit's, which the page logs once for all."""
    if shown_path not in budget.omitted:
        logger.warning("%s %s; the report says so in its place", shown_path, problem)
    return problem


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        raise ArtefactError(f"cannot be read ({' '.join(str(error).split())})") from error


def _resize(image: Image.Image, width: int) -> Image.Image:
    if image.width == width:
        return image
    return image.resize((width, max(1, round(image.height * width / image.width))), reducing_gap=2.0)


def _webp(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=_QUALITY, method=4)
    return _uri("webp", stream.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
