"""Video sequences in DAVIS-2017's format: things that move and change size over a panning photograph."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tools.sample_data.cutouts import make_cutout, paste
from tools.sample_data.images import write_indexed_png, write_jpeg
from tools.sample_data.photographs import read_photograph, scale_part

WIDTH, HEIGHT = 320, 240
"""Size of a frame in pixels.

The protocol scales the short side to 480 whatever it was, so that the number of patches depends on the shape alone: 4:3 gives
30 x 40 patches of 16 pixels, against 30 x 52 for a frame of 480 x 854. Smaller files only save the drawing and the scoring.
"""
PAN = 1.1
"""The background is this much wider than the frame; the camera pans over the rest."""


@dataclass(frozen=True, kw_only=True)
class Actor:
    """A thing that moves from one place to another; centres are fractions of the frame's width and height."""

    name: str
    """A cut-out."""
    start: tuple[float, float]
    """Centre in the first frame."""
    end: tuple[float, float]
    """Centre in the last frame."""
    size: tuple[int, int]
    """Long side in pixels in the first and in the last frame."""


@dataclass(frozen=True, kw_only=True)
class Sequence:
    """A plot; the generator varies it a little."""

    name: str
    """Folder name."""
    background: str
    """File of the photograph behind."""
    actors: tuple[Actor, ...]
    """Object 1, 2, ...; later ones hide earlier ones."""


SEQUENCES = (
    Sequence(
        name="cat-launchpad",
        background="rocket.jpg",
        actors=(Actor(name="cat", start=(0.3, 0.62), end=(0.62, 0.45), size=(100, 150)),),
    ),
    Sequence(
        name="coffee-garage",
        background="motorcycle_right.png",
        actors=(
            Actor(name="person", start=(0.7, 0.62), end=(0.5, 0.58), size=(150, 170)),
            Actor(name="cup", start=(0.2, 0.4), end=(0.5, 0.72), size=(100, 80)),
        ),
    ),
)
JITTER = 0.04
"""Largest shift of a start or an end, as a fraction of the frame."""


def draw_davis(root: Path, rng: np.random.Generator, frames: int) -> None:
    """Write `root/{JPEGImages,Annotations}/480p/<sequence>` and `root/ImageSets/2017/val.txt`.

    Args:
        root: The new folder, `DAVIS`.
        rng: Varies the paths.
        frames: Frames per sequence.
    """
    for sequence in SEQUENCES:
        _draw_sequence(root, rng, sequence, frames)
    listing = root / "ImageSets" / "2017" / "val.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("".join(f"{sequence.name}\n" for sequence in SEQUENCES), encoding="utf-8")


def _draw_sequence(root: Path, rng: np.random.Generator, sequence: Sequence, frames: int) -> None:
    background = _fit_background(read_photograph(sequence.background))
    starts = [np.array(actor.start) + rng.uniform(-JITTER, JITTER, 2) for actor in sequence.actors]
    ends = [np.array(actor.end) + rng.uniform(-JITTER, JITTER, 2) for actor in sequence.actors]
    for frame, moment in enumerate(np.linspace(0.0, 1.0, frames)):
        pan = round((background.shape[1] - WIDTH) * moment)
        image = background[:, pan : pan + WIDTH].copy()
        ids = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        for object_id, (actor, start, end) in enumerate(zip(sequence.actors, starts, ends, strict=True), start=1):
            long_side = round(actor.size[0] + (actor.size[1] - actor.size[0]) * moment)
            cutout = make_cutout(actor.name, long_side)
            centre_x, centre_y = (start + (end - start) * moment) * (WIDTH, HEIGHT)
            left, top = round(centre_x - cutout.mask.shape[1] / 2), round(centre_y - cutout.mask.shape[0] / 2)
            ids[paste(image, cutout, left, top)] = object_id
        write_jpeg(root / "JPEGImages" / "480p" / sequence.name / f"{frame:05d}.jpg", image)
        write_indexed_png(root / "Annotations" / "480p" / sequence.name / f"{frame:05d}.png", ids)


def _fit_background(photograph: np.ndarray) -> np.ndarray:
    """The middle of a photograph, uint8 [HEIGHT, WIDTH * PAN, 3]."""
    height, width = photograph.shape[:2]
    wide = round(WIDTH * PAN)
    part = min(width / wide, height / HEIGHT)
    left, top = (width - part * wide) / 2, (height - part * HEIGHT) / 2
    box = (left, top, left + part * wide, top + part * HEIGHT)
    return scale_part(photograph, box, (wide, HEIGHT))
