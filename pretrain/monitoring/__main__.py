"""`python -m pretrain.monitoring`: the plots of training, of a finished checkpoint."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from backbones.file import is_timm_name
from common.cli import parse, run_command


@dataclass(kw_only=True)
class DrawConfig:
    """Draw what a checkpoint sees in a few images: attention, principal components, and its method's positives or matches."""

    checkpoint: Path  # A checkpoint of any known layout, or a backbone file; of ours also what its method adds to the backbone.
    images: Path  # Folder of images, at any depth; the first ones are drawn.
    output: Path  # Folder for the plots.
    num_images: int = 4  # How many images are drawn.
    device: Literal["auto", "cpu", "cuda"] = "auto"  # `auto` takes a GPU where there is one.

    def __post_init__(self) -> None:
        if self.num_images < 1:
            raise ValueError(f"num_images={self.num_images} must be at least 1")


def main(argv: Sequence[str]) -> int:
    config = parse(DrawConfig, argv, "python -m pretrain.monitoring")
    if not is_timm_name(config.checkpoint) and not config.checkpoint.exists():
        raise ValueError(f"checkpoint: {config.checkpoint} does not exist; give a checkpoint or a backbone file")
    # Only now: `--help` and mistakes do without torch.
    from common.distributed import choose_device
    from common.files import write_atomically
    from pretrain.data.sources import images_of_folder
    from pretrain.monitoring.plots import choose_images, draw_all, open_subject

    images = choose_images(images_of_folder(config.images, "images"), config.num_images, spread=False)
    subject = open_subject(config.checkpoint, choose_device(config.device))
    for name, figure in draw_all(subject, images).items():
        path = config.output / f"{name}.png"
        write_atomically(path, figure.savefig)
        logging.getLogger("pretrain.monitoring").info("%s", path)
    return 0


if __name__ == "__main__":
    run_command(main)
