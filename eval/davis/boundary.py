"""The boundary measure F of DAVIS: how well two contours agree within a tolerance.

Source: davisvideochallenge/davis2017-evaluation, `davis2017/metrics.py`; the boundary definition goes back to `seg2bmap` of the
Berkeley segmentation benchmark.
"""

import math

import numpy as np

from eval.davis.bits import BinaryImage, count, dilate, pack

TOLERANCE_OF_DIAGONAL = 0.008
"""The tolerance is this share of the image diagonal, rounded up to whole pixels: 8 at 854 x 480."""


def boundary_tolerance(height: int, width: int) -> int:
    """Largest distance in pixels at which contours of an image of this size still agree."""
    return math.ceil(TOLERANCE_OF_DIAGONAL * float(np.linalg.norm((height, width))))


def boundary_pixels(mask: BinaryImage) -> BinaryImage:
    """Pixels that differ from their right, lower or lower right neighbour.

    The image's own edge is no contour: a mask that fills the image has none.
    """
    boundary = np.zeros_like(mask)
    boundary[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    boundary[:-1] |= mask[:-1] ^ mask[1:]
    boundary[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return boundary


def boundary_f(annotation: BinaryImage, prediction: BinaryImage, tolerance: int) -> float:
    """Harmonic mean of the shares of either contour that lie within the tolerance of the other.

    Args:
        annotation: [H, W].
        prediction: [H, W]. Both may be the same cut-out of larger masks if it leaves at least one pixel around the objects,
            except where the image ends.
        tolerance: In pixels, Euclidean; see `boundary_tolerance`.

    Returns:
        In [0, 1]; 1 if there is no contour at all, 0 if there is only one.
    """
    wanted, found = (pack(boundary_pixels(mask), margin=tolerance) for mask in (annotation, prediction))
    num_wanted, num_found = count(wanted), count(found)
    if not num_wanted and not num_found:
        return 1.0
    if not num_wanted or not num_found:
        return 0.0
    precision = count(found & dilate(wanted, tolerance)) / num_found
    recall = count(wanted & dilate(found, tolerance)) / num_wanted
    if precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)
