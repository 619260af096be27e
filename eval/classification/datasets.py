"""From the options to the images."""

from pathlib import Path

from common.cifar import find_layout
from eval.classification.cifar import read_cifar
from eval.classification.image_folder import read_image_folder
from eval.classification.images import Splits


def read_splits(root: Path, train_folder: str, test_folder: str, classes: str) -> Splits:
    """Find out what lies in a folder and list it.

    Args:
        root: CIFAR's binary files, or two folders of class folders.
        train_folder: See `ClassificationConfig`.
        test_folder: See `ClassificationConfig`.
        classes: See `ClassificationConfig`.

    Raises:
        ValueError: If it is neither, or not whole.
    """
    if not root.is_dir():
        raise ValueError(
            f"{root}: no such folder; give the one that holds {train_folder} and {test_folder}, or CIFAR's binary files"
        )
    layout = find_layout(root)
    if layout is None:
        return read_image_folder(root, train_folder, test_folder, classes)
    if classes:
        raise ValueError(f"classes={classes}: {layout.name} is evaluated as a whole; leave the option out")
    return read_cifar(root, layout)
