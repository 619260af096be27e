"""How often which class is taken for which, and the matching of predicted with true classes.

Shapes: C classes. The 3 of a count array: intersection, predicted, labelled pixels.

Source: `hbird/utils/eval_metrics.py` of vpariza/open-hummingbird-eval 5e79da2.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from common.distributed import rank, wait_for_all, world_size
from common.files import write_atomically
from eval.progress import Progress
from eval.result import read_arrays

Counts = npt.NDArray[np.int64]

CELLS_AT_ONCE = 2**24  # which are held in memory


def confusion(truth: Tensor, prediction: Tensor, num_classes: int) -> Counts:
    """Pixels of a true (row) and a predicted class (column) [C, C], without those whose truth is no class."""
    counted = truth < num_classes
    cells = truth[counted].long() * num_classes + prediction[counted].long()
    return cells.bincount(minlength=num_classes**2).view(num_classes, num_classes).numpy()


def iou_of_pairs(confusion_CC: Counts) -> npt.NDArray[np.float64]:
    """IoU of each true class with each predicted one; 0 where both are absent."""
    union_CC = confusion_CC.sum(1, keepdims=True) + confusion_CC.sum(0, keepdims=True) - confusion_CC
    return confusion_CC / np.maximum(union_CC, 1)


def best_matching(confusion_CC: Counts) -> Counts:
    """For each predicted class the true one that it counts for [C], so that the sum of the IoU is largest."""
    true_C, predicted_C = linear_sum_assignment(-iou_of_pairs(confusion_CC))
    matching_C: Counts = true_C[np.argsort(predicted_C)]
    return matching_C


def class_pixels(confusion: Counts, matching_C: Counts | None = None) -> Counts:
    """Intersection, predicted and labelled pixels of each class [.., 3, C], from confusion matrices [.., C, C]."""
    if matching_C is not None:
        confusion = np.take(confusion, np.argsort(matching_C), axis=-1)
    return np.stack([np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(-2), confusion.sum(-1)], axis=-2)


def count_in_files(
    folder: Path,
    name: str,
    images: Sequence[int],
    at_once: int,
    cells: int,
    count: Callable[[Sequence[int]], npt.NDArray[np.uint32]],
) -> list[Path]:
    """Files of confusion matrices, so many cells of each image, below 2^32 pixels; those that an interrupted run left are kept.

    A file is of at most `at_once` images and, unless it is of one, `CELLS_AT_ONCE`. Every process makes each world-size-th;
    `read_counts` reads them, one by one, since all together need not fit in memory.
    """
    at_once = max(1, min(at_once, CELLS_AT_ONCE // cells))
    parts = [images[start : start + at_once] for start in range(0, len(images), at_once)]
    # By the number of images, so that files of parts of another size are not taken for these.
    paths = [folder / f"{name}-{place:05d}-of-{at_once}.npz" for place in range(len(parts))]
    own = [
        (path, part)
        for place, (path, part) in enumerate(zip(paths, parts, strict=True))
        if place % world_size() == rank() and not path.is_file()
    ]
    quiet = True if rank() or not own else None  # None: quiet where no terminal is
    with Progress(total=sum(len(part) for _, part in own), unit="image", desc=f"search ({name})", disable=quiet) as bar:
        for path, part in own:
            write = partial(np.savez_compressed, allow_pickle=False, counts=count(part))
            write_atomically(path, write)
            bar.update(len(part))
    wait_for_all()
    return paths


def read_counts(path: Path) -> Counts:
    return read_arrays(path)["counts"].astype(np.int64)
