"""`python -m pretrain.watching`: the pictures of training, of a finished checkpoint."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.command import parse_config, run_command
from pretrain.data.sources import images_of_folder
from pretrain.distributed import choose_device
from pretrain.watching.opening import open_subject
from pretrain.watching.panels import write_figure
from pretrain.watching.photographs import choose_photographs
from pretrain.watching.pictures import draw_pictures


@dataclass(kw_only=True)
class DrawConfig:
    """Draw what a checkpoint sees in a few images: attention, principal components, and its method's positives or matches."""

    checkpoint: Path
    """A checkpoint of any known layout, or a backbone file; of ours also what its method adds to the backbone."""
    images: Path
    """Folder of images, at any depth; the first ones are drawn."""
    output: Path
    """Folder for the pictures."""
    num_images: int = 4
    """How many images are drawn."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU where there is one."""

    def __post_init__(self) -> None:
        """Reject a number without meaning."""
        if self.num_images < 1:
            raise ValueError(f"num_images={self.num_images} must be at least 1")


def draw(config: DrawConfig) -> list[Path]:
    """Write the pictures; returns their paths.

    Raises:
        ValueError: If the checkpoint or the images cannot be used.
        OSError: If a picture cannot be written.
    """
    photographs = choose_photographs(images_of_folder(config.images, "images"), config.num_images, spread=False)
    subject = open_subject(config.checkpoint).to(choose_device(config.device))
    paths = []
    for name, figure in draw_pictures(subject, photographs).items():
        paths.append(config.output / f"{name}.png")
        write_figure(figure, paths[-1])
    return paths


def main(argv: Sequence[str]) -> int:
    """Parse, draw, name the pictures."""
    for path in draw(parse_config(DrawConfig, "python -m pretrain.watching", argv)):
        logging.getLogger("pretrain.watching").info("%s", path)
    return 0


if __name__ == "__main__":
    run_command(main)
