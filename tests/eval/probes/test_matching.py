"""Files of confusion matrices."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eval.probes.matching import CELLS_AT_ONCE, count_in_files, read_counts


def test_confusion_matrices_are_held_for_few_images_of_many_classes_at_a_time(tmp_path: Path) -> None:
    counted = []

    def count(images: Sequence[int]) -> npt.NDArray[np.uint32]:
        counted.append(list(images))
        return np.array(images, np.uint32)

    for at_once, cells in ((3, 4), (3, CELLS_AT_ONCE // 2), (3, 2 * CELLS_AT_ONCE)):
        count_in_files(tmp_path, "test", range(5), at_once, cells, count)
    assert counted == [[0, 1, 2], [3, 4], [0, 1], [2, 3], [4], [0], [1], [2], [3], [4]]
    paths = count_in_files(tmp_path, "test", range(5), 3, 4, count)
    assert [read_counts(path).tolist() for path in paths] == [[0, 1, 2], [3, 4]]
