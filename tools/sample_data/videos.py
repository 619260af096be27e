"""Small sets of videos in the formats of the tasks: things that move and change size over a panning photograph.

Each `draw_...` function writes a new folder. All randomness comes from its generator, so that the same seed gives the same bytes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.io import savemat

from eval.propagation.masks import write_mask
from tools.sample_data.formats import write_image, write_lines
from tools.sample_data.scenes import make_cutout, paste, read_photograph, scale_part

PAN = 1.1  # Width of the background over that of the frame; the camera pans over the rest.
JITTER = 0.04  # Largest shift of an actor's start or end, as a fraction of the frame.


class Actor(NamedTuple):
    """A cut-out that moves from one centre to another (fractions of the frame's width and height) and changes its long side."""

    name: str
    start: tuple[float, float]
    end: tuple[float, float]
    size: tuple[int, int]  # Long side in pixels in the first and in the last frame.


Shown = tuple[np.ndarray, tuple[int, int, int, int]]
"""An actor in a frame: the pixels that it covers, bool [H, W], and left, top, width and height of its whole cut-out."""


# DAVIS-2017

DAVIS_SIZE = (320, 240)
"""Width and height of a frame in pixels.

The protocol scales the short side to 480, so that only the aspect ratio determines the number of patches: 4:3 gives 30 x 40
patches of 16 pixels, against 30 x 52 for a frame of 480 x 854. Smaller frames only make drawing and scoring faster.
"""
SEQUENCES: dict[str, tuple[str, tuple[Actor, ...]]] = {
    "cat-launchpad": ("rocket.jpg", (Actor("cat", (0.3, 0.62), (0.62, 0.45), (100, 150)),)),
    "coffee-garage": (
        "motorcycle_right.png",
        (Actor("person", (0.7, 0.62), (0.5, 0.58), (150, 170)), Actor("cup", (0.2, 0.4), (0.5, 0.72), (100, 80))),
    ),
}
"""Name -> photograph in the background, and the objects 1, 2, ...; later objects hide earlier ones. The paths vary by `JITTER`."""


def draw_davis(root: Path, rng: np.random.Generator, frames: int) -> None:
    """Write `root/{JPEGImages,Annotations}/480p/SEQUENCE` of `frames` frames each, and `root/ImageSets/2017/val.txt`."""
    for name, (photograph, actors) in SEQUENCES.items():
        masks = root / "Annotations" / "480p" / name
        masks.mkdir(parents=True)
        for frame, (image, shown) in enumerate(_draw_frames(rng, DAVIS_SIZE, photograph, actors, frames)):
            ids = np.zeros(image.shape[:2], dtype=np.uint8)
            for object_id, (mask, _) in enumerate(shown, start=1):
                ids[mask] = object_id
            write_image(root / "JPEGImages" / "480p" / name / f"{frame:05d}.jpg", image)
            write_mask(masks / f"{frame:05d}.png", ids)
    write_lines(root / "ImageSets" / "2017" / "val.txt", SEQUENCES)


# VIP: 0 = background, 1 to 19 = parts of persons. A person's parts are bands of the cut-out, from its top down.

VIP_SIZE = (288, 192)
VIP_PARTS = ((0.18, 2), (0.42, 13), (0.75, 4), (1.0, 12))  # where a band ends, in heights: hair, face, clothes, torso
WALKS: dict[str, tuple[str, tuple[Actor, ...]]] = {
    "videos1": ("rocket.jpg", (Actor("person", (0.3, 0.55), (0.6, 0.5), (150, 170)),)),
    "videos2": ("motorcycle_right.png", (Actor("person", (0.7, 0.6), (0.5, 0.5), (160, 130)),)),
}


def draw_vip(root: Path, rng: np.random.Generator, frames: int) -> None:
    """Write `root/{Images,Annotations/Category_ids}/videosN`, and `root/lists/val_videos.txt`."""
    for name, (photograph, actors) in WALKS.items():
        for frame, (image, shown) in enumerate(_draw_frames(rng, VIP_SIZE, photograph, actors, frames)):
            labels = np.zeros(image.shape[:2], dtype=np.uint8)
            rows = np.arange(image.shape[0])[:, None]
            for mask, (_, top, _, height) in shown:
                for end, part in reversed(VIP_PARTS):
                    labels[mask & (rows < top + end * height)] = part
            write_image(root / "Images" / name / f"{frame:012d}.jpg", image)
            write_image(root / "Annotations" / "Category_ids" / name / f"{frame:012d}.png", labels)
    write_lines(root / "lists" / "val_videos.txt", WALKS)


# JHMDB: 15 joints of one person per video. A video of one action is for testing, the other for training.

JHMDB_SIZE = (320, 240)
MOVES: dict[str, tuple[str, tuple[Actor, ...]]] = {
    "stand/astronaut_stand_0": ("rocket.jpg", (Actor("person", (0.4, 0.6), (0.55, 0.5), (170, 190)),)),
    "wave/astronaut_wave_0": ("motorcycle_right.png", (Actor("person", (0.65, 0.55), (0.45, 0.6), (190, 160)),)),
}
JOINT_PLACES = (
    *((0.37, 0.4), (0.37, 0.85), (0.37, 0.2), (0.18, 0.5), (0.55, 0.5), (0.25, 0.95), (0.48, 0.95), (0.1, 0.7), (0.62, 0.7)),
    *((0.3, 0.98), (0.44, 0.98), (0.2, 0.8), (0.52, 0.8), (0.33, 0.99), (0.4, 0.99)),
)
"""Of each joint in the cut-out, as fractions of its width and height: neck, belly, face, shoulders, hips, elbows, knees, ..."""


def draw_jhmdb(root: Path, rng: np.random.Generator, frames: int) -> None:
    """Write `root/{Rename_Images,joint_positions}/CLASS/VIDEO`, and `root/splits/CLASS_test_split1.txt`."""
    for name, (photograph, actors) in MOVES.items():
        places = []
        for frame, (image, shown) in enumerate(_draw_frames(rng, JHMDB_SIZE, photograph, actors, frames), start=1):
            _, (left, top, width, height) = shown[0]
            places.append(np.array(JOINT_PLACES) * (width, height) + (left + 1, top + 1))
            write_image(root / "Rename_Images" / name / f"{frame:05d}.png", image)
        path = root / "joint_positions" / name / "joint_positions.mat"
        path.parent.mkdir(parents=True)
        savemat(path, {"pos_img": np.stack(places, axis=2).transpose(1, 0, 2)})
        # A MATLAB file begins with 116 bytes of text, into which SciPy writes the date.
        path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(116) + path.read_bytes()[116:])
        action, video = name.split("/")
        write_lines(root / "splits" / f"{action}_test_split1.txt", [f"{video}.avi 2", f"another_{video}.avi 1"])


def _draw_frames(
    rng: np.random.Generator, size: tuple[int, int], photograph: str, actors: tuple[Actor, ...], frames: int
) -> Iterator[tuple[np.ndarray, list[Shown]]]:
    """Frames, uint8 [H, W, 3], with their actors; later ones hide earlier ones."""
    width, height = size
    background = _middle(read_photograph(photograph), round(width * PAN), height)
    starts = [np.array(actor.start) + rng.uniform(-JITTER, JITTER, 2) for actor in actors]
    ends = [np.array(actor.end) + rng.uniform(-JITTER, JITTER, 2) for actor in actors]
    for progress in np.linspace(0.0, 1.0, frames):
        pan = round((background.shape[1] - width) * progress)
        image = background[:, pan : pan + width].copy()
        shown = []
        for actor, start, end in zip(actors, starts, ends, strict=True):
            cutout = make_cutout(actor.name, round(actor.size[0] + (actor.size[1] - actor.size[0]) * progress))
            centre_x, centre_y = (start + (end - start) * progress) * (width, height)
            own_height, own_width = cutout.mask.shape
            left, top = round(centre_x - own_width / 2), round(centre_y - own_height / 2)
            shown.append((paste(image, cutout, left, top), (left, top, own_width, own_height)))
        yield image, shown


def _middle(photograph: np.ndarray, wide: int, high: int) -> np.ndarray:
    """The largest centre crop of a photograph with this aspect ratio, scaled to uint8 [high, wide, 3]."""
    height, width = photograph.shape[:2]
    part = min(width / wide, height / high)
    left, top = (width - part * wide) / 2, (height - part * high) / 2
    return scale_part(photograph, (left, top, left + part * wide, top + part * high), (wide, high))
