"""Embeds images in the page, up to a limit on their size: the artefacts of results, and DAVIS sequences as short films.

The page names what is left out. A film is a strip of frames below each other, of which the page shows one at a time.
"""

import base64
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from PIL import Image

from common.files import one_line
from common.images import evenly
from tables.collect import Measurement
from tables.report.data import Group, page_path

logger = logging.getLogger(__name__)

_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".webp")
_WIDEST = 1040  # Largest width in pixels; the images of predictions have two panels of 512 pixels.
_QUALITY = 78

_FRAME_FOLDERS = ("overlays", "masks")
"""Artefacts with a folder of frames for each sequence; the first that a result has is shown."""
_MOST_FRAMES = 16
FRAME_WIDTH = 320


class ArtefactError(ValueError):
    """An artefact that the report cannot show; the text says why."""


@dataclass(kw_only=True)
class PictureBudget:
    """The room for images. The first image that does not fit closes it: later ones are not even decoded."""

    limit_mb: float  # Millions of characters of `data:` addresses.
    used: int = 0
    closed: bool = False
    omitted: list[str] = field(default_factory=list)  # Paths of the images that did not fit.

    def take(self, path: str, size: int) -> bool:
        """Whether an image of `size` characters still fits; if so, it takes its room."""
        self.closed = self.closed or self.used + size > self.limit_mb * 1e6
        if self.closed:
            self.omitted.append(path)
        else:
            self.used += size
        return not self.closed


def path_within(folder: Path, relative: str) -> Path:
    """The path of something to show, such as an artefact.

    Raises:
        ArtefactError: If it is missing, or outside the folder: a page that people pass on must not take files from there.
    """
    folder = folder.resolve()
    try:
        path = (folder / relative).resolve()
    except ValueError as error:
        raise ArtefactError("has a name that no file has") from error
    if not path.is_relative_to(folder):
        raise ArtefactError("lies outside its result's folder")
    if not (path.is_file() or path.is_dir()):
        raise ArtefactError("is missing")
    return path


def galleries(groups: Sequence[Group], budget: PictureBudget) -> dict[str, list[dict[str, Any]]]:
    """The images among the artefacts of all results: anchor of a group -> `measurement` and `pictures` of each result.

    Every result gets its first image before any gets its second, so that the limit affects all alike.
    """
    shown: dict[str, list[dict[str, Any]]] = {group.anchor: [] for group in groups}
    every = []
    of_earlier_groups: set[int] = set()  # A classification result is in two groups; the first one shows its images.
    for group in groups:
        for measurement in group.measurements:
            names = _image_artefacts(measurement)
            if names and measurement.number not in of_earlier_groups:
                of_earlier_groups.add(measurement.number)
                gallery = {"measurement": measurement, "pictures": []}
                shown[group.anchor].append(gallery)
                every.append([(gallery, name) for name in names])
    for turn in zip_longest(*every):
        for gallery, name in filter(None, turn):
            measurement = gallery["measurement"]
            relative = measurement.result.artefacts[name]
            embedded = embed_picture(measurement.folder, relative, page_path(measurement, relative), budget)
            gallery["pictures"].append({"title": name, **embedded})
    return shown


def _image_artefacts(measurement: Measurement) -> list[str]:
    images = [name for name, path in measurement.result.artefacts.items() if path.lower().endswith(_SUFFIXES)]
    return [name for name in images if name != "training_curves"]  # which the report itself draws, from the log


def embed_picture(folder: Path, relative: str, shown_path: str, budget: PictureBudget) -> dict[str, Any]:
    """A picture below a folder as part of the page, which names it `shown_path`: an animated GIF as it is, others as WebP."""

    def embed() -> dict[str, Any]:
        path = path_within(folder, relative)
        image = _open(path)
        if path.suffix.lower() == ".gif":
            return {"uri": _uri("gif", path.read_bytes()), "width": image.width, "height": image.height}
        image = _resize(image, min(_WIDEST, image.width))
        return {"uri": _webp(image), "width": image.width, "height": image.height}

    return _within(budget, shown_path, embed)


def make_films(group: Group, most: int, budget: PictureBudget) -> dict[str, Any] | None:
    """Films of at most `most` sequences, and the names of the others; None for results without folders of frames."""
    shows = []
    for measurement in group.measurements:
        kind = next((kind for kind in _FRAME_FOLDERS if kind in measurement.result.artefacts), None)
        if kind is not None:
            shows.append((measurement, kind, *_sequence_folders(measurement, kind)))
    if not shows:
        return None
    sequences = sorted({name for _, _, folders, _ in shows for name in folders})
    shown = evenly(sequences, most)
    films = []
    for sequence in shown:
        present = [folders[sequence] for _, _, folders, _ in shows if sequence in folders]
        names = sorted({path.stem for folder in present for path in folder.glob("*.png")})
        frames = evenly(names, _MOST_FRAMES)
        strips = []
        for measurement, kind, folders, problem in shows:
            path = page_path(measurement, measurement.result.artefacts[kind])
            if not problem and sequence not in folders:
                problem = f"{path} has no sequence {sequence}"
            if problem:
                strip = {"uri": "", "problem": problem}
            else:
                strip = _within(budget, f"{path}/{sequence}", partial(_strip, folders[sequence], frames))
            strips.append({"measurement": measurement, "shows": kind, **strip})
        films.append({"sequence": sequence, "frames": frames, "num_frames": len(names), "strips": strips, "width": FRAME_WIDTH})
    return {"films": films, "left_out": [name for name in sequences if name not in shown]}


def _sequence_folders(measurement: Measurement, artefact: str) -> tuple[dict[str, Path], str]:
    """Sequence -> folder of its frames, and the problem if they cannot be read."""
    relative = measurement.result.artefacts[artefact]
    try:
        root = path_within(measurement.folder, relative)
        folders = [path for path in sorted(root.iterdir()) if path.is_dir()]
        # JHMDB's are in folders of classes.
        below = [path for folder in folders for path in sorted(folder.iterdir()) if path.is_dir()]
    except (ArtefactError, OSError) as error:
        return {}, _logged(page_path(measurement, relative), error)
    return {path.relative_to(root).as_posix(): path for path in below or folders}, ""


def _strip(folder: Path, frames: Sequence[str]) -> dict[str, Any]:
    """The frames of a sequence below each other, and the height of a frame in pixels."""
    if not frames:
        raise ArtefactError("holds no frame")
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
    return {"uri": _webp(strip), "height": height}


def _within(budget: PictureBudget, path: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """An image, if the budget allows; else a `problem` that names its path. A problem is logged, or counted as omitted."""
    try:
        made = {} if budget.closed else make()
    except ArtefactError as error:
        return {"uri": "", "problem": _logged(path, error)}
    if not budget.take(path, len(made.get("uri", ""))):
        return {"uri": "", "problem": f"{path} is beyond the limit on pictures (--max-picture-mb)"}
    return {**made, "problem": ""}


def _logged(path: str, error: ArtefactError | OSError) -> str:
    problem = f"{path} {error if isinstance(error, ArtefactError) else f'cannot be read ({error.strerror})'}"
    logger.warning("%s; the report says so in its place", one_line(problem))
    return problem


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
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
