"""Pictures of masks: the objects' colours over the frame, with contours."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from eval.davis.dataset import VideoSequence
from eval.davis.frames import FrameError
from eval.davis.masks import Mask, davis_palette, read_mask
from eval.davis.writing import whole_folder

Picture = npt.NDArray[np.uint8]
"""[H, W, 3] RGB."""

_OPACITY = 0.5
_PALETTE_256x3 = davis_palette()


def overlay(frame: Picture, mask: Mask) -> Picture:
    """Blend the objects' palette colours into a frame; where an id meets another, its contour is drawn in the full colour.

    Args:
        frame: [H, W, 3].
        mask: [H, W].
    """
    colours_HW3 = _PALETTE_256x3[mask]
    blended_HW3 = ((1 - _OPACITY) * frame + _OPACITY * colours_HW3).round().astype(np.uint8)
    object_HW1, contour_HW1 = (mask > 0)[:, :, None], _contours(mask)[:, :, None]
    return np.where(object_HW1, np.where(contour_HW1, colours_HW3, blended_HW3), frame)


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
    """Write `folder/FRAME.png` for every frame from `masks/FRAME.png`; a folder that exists is complete and is kept."""
    if folder.is_dir():
        return
    with whole_folder(folder) as partial:
        for path in sequence.frames:
            picture = overlay(read_picture(path), read_mask(masks / f"{path.stem}.png"))
            Image.fromarray(picture).save(partial / f"{path.stem}.png")


def _contours(mask: Mask) -> npt.NDArray[np.bool_]:
    """Pixels [H, W] with another id beside, above or below them."""
    contours = np.zeros(mask.shape, dtype=bool)
    rows, columns = mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]
    contours[1:] |= rows
    contours[:-1] |= rows
    contours[:, 1:] |= columns
    contours[:, :-1] |= columns
    return contours
