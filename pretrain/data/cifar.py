"""CIFAR-10 and CIFAR-100: the training images of the binary archives, without labels."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from common.cifar import LAYOUTS, find_layout, picture_planes, present_train_files, read_records
from pretrain.data.decoding import Pixels
from pretrain.data.names import Names


class CifarTrainImages:
    """An `ImageSource` in memory, which forked workers share."""

    def __init__(self, root: Path) -> None:
        """Read the training records, fewer than all files too.

        Args:
            root: Folder of the binary archive's files.

        Raises:
            ValueError: If it is not one, or a file is damaged.
        """
        layout = find_layout(root)
        if layout is None:
            expected = " or ".join(f"{layout.name}'s {layout.test_file}" for layout in LAYOUTS)
            raise ValueError(f"data.path: {root} does not hold {expected}; give the folder of a binary archive")
        records, names = read_records(root, layout, present_train_files(root, layout))
        self.root = root
        self.names = Names(names)
        self._planes_N3HW: npt.NDArray[np.uint8] = picture_planes(records, layout)

    def load(self, index: int) -> Pixels:
        """See `ImageSource`."""
        return np.ascontiguousarray(self._planes_N3HW[index].transpose(1, 2, 0))

    def describe(self, index: int) -> str:
        """See `ImageSource`."""
        return f"{self.root}/{self.names[index]}"
