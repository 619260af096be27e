"""Average precision of a ranked list, as the evaluations of landmark retrieval and of copy detection compute it.

Source: `compute_ap` of filipradenovic/revisitop be39832, python/evaluate.py; facebookresearch/dino 7c446df, eval_copy_detection.py.
"""

import numpy as np
import numpy.typing as npt


def trapezoid_precision(ranks: npt.NDArray[np.int64], positives: int) -> float:
    """The area under precision by recall, from the 0-based ranks of the positives that were found, ascending.

    Each of them adds the mean of the precisions just before and at it; before rank 0, precision is 1.
    """
    found = np.arange(len(ranks))
    before = np.where(ranks == 0, 1.0, found / np.maximum(ranks, 1))
    return float(((before + (found + 1) / (ranks + 1)) / (2 * positives)).sum())
