"""Masks of the frames of a video: from the first frame's parts to labels of patches, and from labels to parts.

Source: alexandre-eymael/CropMAE 5d0dab2, `downstreams/propagation/src/data/vos.py` and `src/utils/test_utils.py`.

Shapes: H x W pixels, h x w patches, C classes that the first frame shows.
"""

from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from eval.propagation.carrying import carried_labels
from eval.propagation.features import FeatureExtractor
from eval.propagation.labels import first_labels, to_mask
from eval.propagation.masks import Mask, write_mask
from eval.propagation.protocol import Rules
from eval.propagation.videos import VideoSequence
from eval.propagation.writing import OnFrame, whole_folder, write_behind
from eval.vip.metric import mask_name


def part_labels(mask: Mask, grid: tuple[int, int], size: tuple[int, int], rules: Rules) -> tuple[Tensor, Mask]:
    """Labels [h, w, C] float32 of a mask, by way of the network's (height, width), and the class of each channel, ascending."""
    classes = np.unique(cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST))
    return first_labels(mask, grid, size, rules, classes), classes


def write_video(video: VideoSequence, folder: Path, extract: FeatureExtractor, rules: Rules, on_frame: OnFrame) -> None:
    """Write the masks of a video at the network's size; the folder appears when all are written.

    That of the first frame is what its labels on the grid give. Frames are decoded ahead and masks are written behind, in threads of
    their own.
    """
    size = rules.stretched_to
    assert size is not None
    grid = size[0] // extract.stride, size[1] // extract.stride
    first_hwC, classes = part_labels(video.first_mask(), grid, size, rules)

    def write(labelled: tuple[Path, Tensor]) -> None:
        frame, labels_hwC = labelled
        write_mask(partial / mask_name(frame), to_mask(labels_hwC, rules, classes, size, size))

    labels = chain([first_hwC], carried_labels(video.frames, video.size, lambda _: first_hwC, extract, rules))
    with whole_folder(folder) as partial:
        write_behind(write, zip(video.frames, labels, strict=True), extract.device, on_frame)
