"""Pixels of true and predicted parts. Loads no torch, so that the processes of `--jobs` start at once.

Shapes: C classes, H x W pixels.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from eval.propagation.masks import Mask, read_mask, resize_mask
from eval.propagation.videos import VideoSequence
from eval.vip.protocol import CLASSES

Counts = npt.NDArray[np.int64]


def mask_name(frame: Path) -> str:
    """The file of a frame's predicted mask, as videowalk's evaluation wants it."""
    return f"{frame.stem}_mask.png"


def video_confusion(video: VideoSequence, folder: Path) -> Counts:
    """Pixels of each true (row) and predicted class (column) [C, C] of all frames of a video, whose masks are in this folder."""
    total = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    for frame, mask in zip(video.frames, video.masks, strict=True):
        total += frame_confusion(read_mask(mask), read_mask(folder / mask_name(frame)))
    return total


def frame_confusion(truth_HW: Mask, prediction_HW: Mask) -> Counts:
    """As `video_confusion`, of a frame; a prediction of another size is resized. Pixels without a true class are left out."""
    height, width = truth_HW.shape
    if prediction_HW.shape != truth_HW.shape:
        prediction_HW = resize_mask(prediction_HW, (height, width))
    counted = truth_HW < len(CLASSES)
    cells = truth_HW[counted].astype(np.int64) * len(CLASSES) + prediction_HW[counted]
    return np.bincount(cells, minlength=len(CLASSES) ** 2).reshape(len(CLASSES), len(CLASSES))
