"""From the options to the images."""

from pathlib import Path

from common.cifar import find_layout
from pretrain.config import DataKind
from pretrain.data.cifar import CifarTrainImages
from pretrain.data.images import images_of_coco, images_of_folder, images_of_list
from pretrain.data.source import ImageSource
from pretrain.data.tar_shards import TAR_SUFFIX, find_shards, open_shards
from pretrain.distributed import rank, world_size


def open_source(path: Path, kind: DataKind, tar_index: Path) -> ImageSource:
    """The images that a path stands for.

    Args:
        path: See `DataConfig`.
        kind: See `DataConfig`.
        tar_index: See `DataConfig`.

    Raises:
        ValueError: If the data are not what they are taken for, not whole or empty.
    """
    chosen = detect_kind(path) if kind == "auto" else kind
    if chosen == "list":
        return images_of_list(path)
    if chosen == "coco":
        return images_of_coco(path)
    if chosen == "cifar":
        return CifarTrainImages(path)
    if chosen == "tar":
        shards = find_shards(path)
        return open_shards(shards, tar_index, start=rank() * len(shards) // world_size())
    return images_of_folder(path)


def detect_kind(path: Path) -> DataKind:
    """What a path looks like: the kinds other than `auto`.

    Raises:
        ValueError: If there is nothing.
    """
    if path.suffix == TAR_SUFFIX:
        return "tar"
    if path.is_dir():
        if find_layout(path):
            return "cifar"
        return "tar" if next(path.glob(f"*{TAR_SUFFIX}"), None) else "folder"
    if not path.is_file():
        raise ValueError(
            f"data.path: {path} does not exist; give a folder of images, a text file of their paths, COCO's annotations, "
            "a folder of CIFAR's binary files, or tar shards"
        )
    return "coco" if path.suffix == ".json" else "list"
