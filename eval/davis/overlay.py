"""Pictures of masks: the objects' colours over the frame, with contours."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from eval.davis.dataset import VideoSequence
from eval.davis.frames import FrameError
from eval.davis.masks import Mask, davis_palette, read_mask
from eval.davis.writing import whole_folder
from eval.drawing import Picture
from eval.drawing import overlay as overlay_labels

_PALETTE_256x3 = davis_palette()


def overlay(frame: Picture, mask: Mask) -> Picture:
    """Blend the objects' palette colours into a frame, with contours; see `eval.drawing.overlay`.

    Args:
        frame: [H, W, 3].
        mask: [H, W].
    """
    return overlay_labels(frame, mask, _PALETTE_256x3)


def read_picture(path: Path) -> Picture:
    """Decode a frame as it is.

    Raises:
        FrameError: If it is damaged.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise FrameError(f"{path}: damaged frame ({error})") from error


def write_overlays(sequence: VideoSequence, masks: Path, folder: Path) -> None:
    """Write `folder/FRAME.png` for every frame from `masks/FRAME.png`; replaces what the folder held."""
    with whole_folder(folder) as partial:
        for path in sequence.frames:
            picture = overlay(read_picture(path), read_mask(masks / f"{path.stem}.png"))
            Image.fromarray(picture).save(partial / f"{path.stem}.png")
