"""`python -m eval.davis.pictures`: animations and a bar chart that put the masks of several backbones side by side."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from PIL import Image

from common.command import parse_config, run_command
from common.files import write_atomically
from eval.davis.dataset import FEWEST_FRAMES, DavisSplit, VideoSequence, find_sequences
from eval.davis.masks import MaskError, read_mask
from eval.davis.overlay import overlay, read_picture
from eval.davis.scores import score_sequences
from eval.davis.summary import Scores
from eval.drawing import Picture, side_by_side

logger = logging.getLogger(__name__)

CHART_FILE = "j_and_f.png"
ANNOTATIONS_TITLE = "annotation"


@dataclass(frozen=True, kw_only=True)
class PicturesConfig:
    """Animate the masks of one or several backbones beside the annotations, and chart their J&F per sequence."""

    davis: Path
    """DAVIS folder: ImageSets, JPEGImages, Annotations."""
    compare: list[Path]
    """Folders of masks, such as `runs/a/davis/masks runs/b/davis/masks`; one suffices."""
    output: Path
    """Folder for SEQUENCE.gif and, where every frame is annotated, j_and_f.png."""
    titles: list[str] | None = None
    """A title for each folder; by default what tells their paths apart."""
    split: str = "val"
    """List in ImageSets; `all`: every folder of frames."""
    year: Literal["2016", "2017"] = "2017"
    """2016: all objects count as one."""
    resolution: str = "480p"
    """Folder below JPEGImages and Annotations; `.` where sequences lie directly in them."""
    sequences: str = ""
    """Only these sequences of the split, separated by commas."""
    width: int = 320
    """Pixels per panel of an animation."""
    frames_per_second: int = 12
    """Speed of the animations."""

    def __post_init__(self) -> None:
        """Reject what cannot be shown."""
        if not self.compare:
            raise ValueError("compare=[] names no folder of masks")
        if len({folder.resolve() for folder in self.compare}) < len(self.compare):
            raise ValueError("compare names a folder twice")
        if self.titles is not None and len(set(self.titles)) != len(self.compare):
            raise ValueError(f"titles={self.titles}: {len(self.compare)} folders need as many titles, each another")
        if self.width < 16 or self.frames_per_second < 1:
            raise ValueError("width must be at least 16, frames_per_second at least 1")


def panel_titles(folders: Sequence[Path]) -> list[str]:
    """Names for different folders: without what their paths share at the end, as few parts of them as tell them apart."""
    parts = [folder.resolve().parts[1:] for folder in folders]
    shared = 0
    while len(parts) > 1 and all(len(path) > shared + 1 and path[-1 - shared] == parts[0][-1 - shared] for path in parts):
        shared += 1
    rests = [path[: len(path) - shared] for path in parts]
    for length in range(1, max(map(len, rests)) + 1):
        titles = ["/".join(rest[-length:]) for rest in rests]
        if len(set(titles)) == len(titles):
            break
    return titles


def write_animation(
    path: Path, sequence: VideoSequence, folders: Sequence[Path], titles: Sequence[str], width: int, frames_per_second: int
) -> None:
    """Write an animated GIF: the annotation where every frame has one, then the masks of each folder.

    Args:
        path: Ends in `.gif`.
        sequence: Its frames and annotations.
        folders: Each holds a mask for every frame.
        titles: One per folder.
        width: Pixels per panel.
        frames_per_second: Speed.

    Raises:
        ValueError: If a mask or frame is missing or damaged, or they differ in size.
    """
    annotated = len(sequence.masks) == len(sequence.frames)
    sources = ([sequence.masks[0].parent] if annotated else []) + [*folders]
    names = ([ANNOTATIONS_TITLE] if annotated else []) + [*titles]
    pages = []
    for frame in sequence.frames:
        picture = read_picture(frame)
        panels = [_panel(picture, folder / f"{frame.stem}.png") for folder in sources]
        pages.append(side_by_side(panels, names, width).quantize(256, dither=Image.Dither.NONE))
    duration_ms = 1000 // frames_per_second
    write_atomically(
        path, lambda temporary: pages[0].save(temporary, save_all=True, append_images=pages[1:], duration=duration_ms, loop=0)
    )


def _panel(frame: Picture, path: Path) -> Picture:
    mask = read_mask(path)
    if mask.shape != frame.shape[:2]:
        (height, width), (frame_height, frame_width) = mask.shape, frame.shape[:2]
        raise MaskError(f"{path}: {width} x {height} pixels, but its frame has {frame_width} x {frame_height}")
    return overlay(frame, mask)


def sequence_figures(scores: Scores) -> dict[str, float]:
    """J&F of each sequence, in percent: the mean of its objects'."""
    values: dict[str, list[float]] = defaultdict(list)
    for name, figures in scores.per_object.items():
        values[name.rpartition("_")[0]].append(100 * figures["J&F-Mean"])
    return {name: float(np.mean(of_objects)) for name, of_objects in values.items()}


def write_chart(path: Path, scores: dict[str, Scores]) -> None:
    """Write a bar chart of J&F in percent per sequence, one colour per set of masks."""
    matplotlib.use("Agg")
    from matplotlib import pyplot  # after the choice of a backend that needs no display

    names = list(sequence_figures(next(iter(scores.values()))))
    places, thickness = np.arange(len(names)), 0.8 / len(scores)
    figure, axes = pyplot.subplots(figsize=(7, 1.5 + 0.3 * len(names) * max(1, len(scores) / 2)), layout="constrained")
    for index, (title, entry) in enumerate(scores.items()):
        values = sequence_figures(entry)
        label = f"{title}: {100 * entry.overall['J&F-Mean']:.1f}"
        axes.barh(places + index * thickness, [values[name] for name in names], height=thickness, label=label)
    axes.set_yticks(places + 0.4 - thickness / 2, names)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("J&F-Mean (%)")
    figure.legend(loc="outside upper center", ncols=2)
    write_atomically(path, figure.savefig)
    pyplot.close(figure)


def draw(config: PicturesConfig) -> list[Path]:
    """Write every picture; returns their paths.

    Raises:
        ValueError: If the data or the masks are incomplete; one line names what.
    """
    split = DavisSplit.from_options(config.davis, config.split, config.year, config.resolution, config.sequences)
    sequences = find_sequences(split, all_masks=False)
    annotated = {item.name: item for item in _annotated(split, sequences)}
    titles = config.titles or panel_titles(config.compare)
    paths = []
    for sequence in sequences:
        path = config.output / f"{sequence.name}.gif"
        folders = [folder / sequence.name for folder in config.compare]
        shown = annotated.get(sequence.name, sequence)
        write_animation(path, shown, folders, titles, config.width, config.frames_per_second)
        logger.info("%s", path)
        paths.append(path)
    if annotated:
        one_object = config.year == "2016"
        scores = {
            title: score_sequences(list(annotated), split.masks_folder, folder, one_object)
            for title, folder in zip(titles, config.compare, strict=True)
        }
        write_chart(config.output / CHART_FILE, scores)
        paths.append(config.output / CHART_FILE)
    return paths


def _annotated(split: DavisSplit, sequences: Sequence[VideoSequence]) -> list[VideoSequence]:
    """Those that can be scored, with a mask for every frame, and with all their masks."""
    complete = []
    for sequence in sequences:
        masks = tuple(sequence.masks[0].parent / f"{frame.stem}.png" for frame in sequence.frames)
        if len(masks) >= FEWEST_FRAMES and all(mask.is_file() for mask in masks):
            complete.append(replace(sequence, masks=masks))
    return complete


def main(argv: Sequence[str]) -> int:
    """Parse, draw, list."""
    for path in draw(parse_config(PicturesConfig, "python -m eval.davis.pictures", argv)):
        print(path)  # noqa: T201 - the command's own output
    return 0


if __name__ == "__main__":
    run_command(main)
