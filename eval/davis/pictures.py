"""`python -m eval.davis.pictures`: animations and a bar chart that put the masks of several backbones side by side."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from common.cli import parse, run_command
from common.files import write_atomically
from eval.davis.config import SequenceOptions
from eval.davis.data import DavisSplit, find_sequences
from eval.propagation.masks import overlay
from eval.propagation.measures import FEWEST_FRAMES, Scores, score_sequences

logger = logging.getLogger(__name__)

CHART_FILE = "j_and_f.png"
CAPTION_HEIGHT = 16  # pixels above each panel for its title


@dataclass(frozen=True, kw_only=True)
class PicturesConfig(SequenceOptions):
    """Animate the masks of one or several backbones beside the annotations, and chart their J&F per sequence."""

    davis: Path  # DAVIS folder: ImageSets, JPEGImages, Annotations.
    compare: list[Path]  # Folders of masks, such as `runs/a/davis/masks runs/b/davis/masks`; one suffices.
    output: Path  # Folder for SEQUENCE.gif and, where every frame is annotated, j_and_f.png.
    titles: list[str] | None = None
    """A title for each folder; by default the parts of their paths that differ."""
    width: int = 320  # Pixels per panel of an animation.
    frames_per_second: int = 12  # Speed of the animations.

    def __post_init__(self) -> None:
        if not self.compare:
            raise ValueError("compare=[] names no folder of masks")
        if len({folder.resolve() for folder in self.compare}) < len(self.compare):
            raise ValueError("compare names a folder twice")
        if self.titles is not None and len(set(self.titles)) != len(self.compare):
            raise ValueError(f"titles={self.titles}: {len(self.compare)} folders need as many titles, each another")
        if self.width < 16 or self.frames_per_second < 1:
            raise ValueError("width must be at least 16, frames_per_second at least 1")


def draw(config: PicturesConfig) -> list[Path]:
    """Write every animation, and the chart; returns their paths."""
    split = DavisSplit.chosen(config.davis, config, config.sequences)
    titles = config.titles or panel_titles(config.compare)
    paths, annotated = [], []
    for sequence in find_sequences(split, all_masks=False):
        folders, shown = [folder / sequence.name for folder in config.compare], titles
        annotations = sequence.masks[0].parent
        if all((annotations / f"{frame.stem}.png").is_file() for frame in sequence.frames):
            folders, shown = [annotations, *folders], ["annotation", *titles]
            annotated += [sequence.name] if len(sequence.frames) >= FEWEST_FRAMES else []
        paths.append(config.output / f"{sequence.name}.gif")
        write_animation(paths[-1], sequence.frames, folders, shown, config)
        logger.info("%s", paths[-1])
    if annotated:
        scores = {
            title: score_sequences(
                annotated, split.masks_folder, folder, config.year == "2016", objects_begin_later=split.dataset != "davis"
            )
            for title, folder in zip(titles, config.compare, strict=True)
        }
        paths.append(config.output / CHART_FILE)
        write_chart(paths[-1], scores)
    return paths


def panel_titles(folders: Sequence[Path]) -> list[str]:
    """Names for different folders: without what their paths share at the end, as few parts of them as tell them apart."""
    paths = [folder.resolve().parts[1:] for folder in folders]
    while len(paths) > 1 and len({path[-1] for path in paths}) == 1 and min(map(len, paths)) > 1:
        paths = [path[:-1] for path in paths]
    for length in range(1, max(map(len, paths)) + 1):
        titles = ["/".join(path[-length:]) for path in paths]
        if len(set(titles)) == len(titles):
            break
    return titles


def write_animation(
    path: Path, frames: Sequence[Path], folders: Sequence[Path], titles: Sequence[str], config: PicturesConfig
) -> None:
    """Write an animated GIF of the masks `folder/FRAME.png` over the frames, those of each folder under its title."""
    width, pages = config.width, []
    for frame in frames:
        panels = Image.fromarray(np.hstack([overlay(frame, folder / f"{frame.stem}.png") for folder in folders]))
        panels = panels.resize((width * len(folders), max(1, round(panels.height * width * len(folders) / panels.width))))
        page = ImageOps.expand(panels, (0, CAPTION_HEIGHT, 0, 0), "white")
        for index, title in enumerate(titles):
            ImageDraw.Draw(page).text((index * width + 4, 2), title, fill="black")
        pages.append(page.quantize(256, dither=Image.Dither.NONE))
    duration_ms = 1000 // config.frames_per_second
    write_atomically(path, lambda gif: pages[0].save(gif, save_all=True, append_images=pages[1:], duration=duration_ms, loop=0))


def sequence_metrics(scores: Scores) -> dict[str, float]:
    """J&F of each sequence, in percent: the mean of its objects'."""
    values: dict[str, list[float]] = defaultdict(list)
    for name, metrics in scores.per_object.items():
        values[name.rpartition("_")[0]].append(100 * metrics["J&F-Mean"])
    return {name: float(np.mean(of_objects)) for name, of_objects in values.items()}


def write_chart(path: Path, scores: dict[str, Scores]) -> None:
    """Write a bar chart of J&F in percent per sequence, one colour per set of masks."""
    from matplotlib.figure import Figure  # slow to load

    names = list(sequence_metrics(next(iter(scores.values()))))
    places, thickness = np.arange(len(names)), 0.8 / len(scores)
    figure = Figure(figsize=(7, 1.5 + 0.3 * len(names) * max(1, len(scores) / 2)), layout="constrained")
    axes = figure.subplots()
    for index, (title, entry) in enumerate(scores.items()):
        label = f"{title}: {100 * entry.overall['J&F-Mean']:.1f}"
        axes.barh(places + index * thickness, list(sequence_metrics(entry).values()), height=thickness, label=label)
    axes.set_yticks(places + 0.4 - thickness / 2, names)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("J&F-Mean (%)")
    figure.legend(loc="outside upper center", ncols=2)
    write_atomically(path, figure.savefig)


def main(argv: Sequence[str]) -> int:
    for path in draw(parse(PicturesConfig, argv, "python -m eval.davis.pictures")):
        print(path)  # noqa: T201 - the command's own output
    return 0


if __name__ == "__main__":
    run_command(main)
