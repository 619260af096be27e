"""`python tools/make_sample_data.py --output DIR` draws small data sets in the benchmarks' formats."""

import functools
import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.cli import parse, run_command
from common.files import lock_folder, names_file, parse_json
from eval.result import SAMPLE_MARKER

SAMPLE_FOLDER = Path("sample")  # where the other tools draw sample data
GENERATOR_VERSION = 2  # grows whenever a change here changes a drawn byte

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Draw small data sets in the formats of the tasks, such as COCO and ADE20K, and images to pretrain on, from photographs."""

    output: Path
    """Folder to draw into: coco/, ade/ADEChallengeData2016/, DAVIS/, imagenet/, VOCdevkit/VOC2007/, VOCdevkit/VOC2012/, cityscapes/,
    nyu/, roxford5k/, rparis6k/, copydays/, coco20k/, VIP_Fine/, JHMDB/ and photos/. Pass it as --data to other commands."""
    seed: int = 0  # Seed of everything random; the same seed gives the same bytes.
    train_images: int = 8  # Training images of most sets, each; images of those of object discovery and of each landmark.
    val_images: int = 4  # Validation images of most sets, each; originals of Copydays.
    frames: int = 8  # Frames of each of the two videos of DAVIS, VIP and JHMDB, each.
    photos: int = 6  # Pretraining images per subject; there are eight subjects.
    class_images: int = 8
    """Labelled training images per subject of the ImageNet-format set; its val split has half as many."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"--seed {self.seed} is negative; pass 0 or more")
        for name, least in (("train_images", 1), ("val_images", 1), ("frames", 3), ("photos", 1), ("class_images", 1)):
            if getattr(self, name) < least:
                # Two frames would leave DAVIS nothing to score: it leaves out the first and the last.
                raise ValueError(f"--{name} {getattr(self, name)} is too few; pass {least} or more")


def draw_samples(config: SampleConfig) -> None:
    """Draw every set that does not exist yet as configured.

    A set only appears under its final name when it is complete, and replaces one that was drawn with other options. ValueError,
    before anything is drawn, if one of the folders exists and is not sample data.
    """
    # These load slowly; --help need not wait for them.
    import numpy as np

    from tools.sample_data import formats, videos, whole_images

    training, frames = {"train_images": config.train_images}, {"frames": config.frames}
    validation = {"val_images": config.val_images}
    splits = training | validation
    # The options are keyword arguments of the function, and part of the marker: a set with other options is drawn anew.
    drawers: dict[str, tuple[Callable[..., None], dict[str, int]]] = {
        "coco": (formats.draw_coco, splits),
        "ade/ADEChallengeData2016": (formats.draw_ade, splits),
        "DAVIS": (videos.draw_davis, frames),
        "photos": (formats.draw_photos, {"count": config.photos}),
        "imagenet": (formats.draw_classes, {"count": config.class_images}),
        "VOCdevkit/VOC2012": (whole_images.draw_voc2012, splits),
        "cityscapes": (formats.draw_cityscapes, splits),
        "nyu": (formats.draw_nyu, splits),
        "roxford5k": (functools.partial(whole_images.draw_landmarks, key="roxford5k"), training),
        "rparis6k": (functools.partial(whole_images.draw_landmarks, key="rparis6k"), training),
        "copydays": (whole_images.draw_copydays, validation),
        "VOCdevkit/VOC2007": (whole_images.draw_voc2007, training),
        "coco20k": (whole_images.draw_coco20k, training),
        "VIP_Fine": (videos.draw_vip, frames),
        "JHMDB": (videos.draw_jhmdb, frames),
    }
    markers = {
        place: {"generator_version": GENERATOR_VERSION, "seed": config.seed, "options": options}
        for place, (_, options) in drawers.items()
    }

    def missing() -> list[str]:
        return [place for place, marker in markers.items() if not _is_drawn(config.output / place, marker)]

    if not missing():
        logger.info("%s: already drawn", config.output)
        return
    with lock_folder(config.output):
        for place in missing():
            draw, options = drawers[place]
            # Each set has its own stream of random numbers, so that changing one leaves the bytes of the others alone.
            rng = np.random.default_rng([config.seed, list(drawers).index(place)])
            _draw_one(config.output / place, functools.partial(draw, rng=rng, **options), markers[place])
            logger.info("%s: drawn", config.output / place)


def _is_drawn(root: Path, marker: dict[str, Any]) -> bool:
    """Whether the set exists, drawn with these options; ValueError if something else is in its place."""
    if not root.exists():
        return False
    path = root / SAMPLE_MARKER
    if not path.is_file():
        raise ValueError(f"{root} exists and is not sample data (no {SAMPLE_MARKER}); choose another --output")
    try:
        return bool(parse_json(path.read_text(encoding="utf-8")) == marker)
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}); remove {root} and draw it again") from error


def _draw_one(root: Path, draw: Callable[[Path], None], marker: dict[str, Any]) -> None:
    """Draw a set into a temporary folder beside its place, then move it there."""
    root.parent.mkdir(parents=True, exist_ok=True)
    for leftover in root.parent.glob(f".{root.name}.*.tmp"):  # of killed processes
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}.", suffix=".tmp", dir=root.parent) as temporary:
        drawn = Path(temporary) / root.name  # whose permissions are the usual ones
        drawn.mkdir()
        with names_file(root):
            draw(drawn)
            (drawn / SAMPLE_MARKER).write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")
        if root.exists():
            shutil.rmtree(root)
        drawn.rename(root)


def main(argv: Sequence[str]) -> int:
    draw_samples(parse(SampleConfig, argv, "python tools/make_sample_data.py"))
    return 0


if __name__ == "__main__":
    run_command(main)
