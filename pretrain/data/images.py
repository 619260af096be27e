"""Image files: under a folder, named by a list, or by COCO's annotations."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from PIL import Image

from pretrain.data.decoding import decode_whole
from pretrain.data.names import Names

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})


class ImageFiles:
    """An `ImageSource` of files."""

    def __init__(self, root: Path, names: Iterable[str]) -> None:
        """Store where they are.

        Args:
            root: Folder that the names are relative to.
            names: Paths of the files.
        """
        self.root = root
        self.names = Names(names)

    def load(self, index: int) -> bytes:
        """See `ImageSource`."""
        return (self.root / self.names[index]).read_bytes()

    def describe(self, index: int) -> str:
        """See `ImageSource`."""
        return str(self.root / self.names[index])


def read_image(path: Path) -> Image.Image:
    """Decode an image completely to RGB.

    Raises:
        OSError: If it cannot be read or decoded; also for files cut short.
    """
    return Image.fromarray(decode_whole(path.read_bytes()))


def is_image_name(name: str) -> bool:
    """Whether a file's name ends as an image's does."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 -- a path object for each of a million is slow


def find_images(folder: Path, option: str = "data.path") -> list[Path]:
    """The files of `images_of_folder`."""
    return [folder / name for name in images_of_folder(folder, option).names]


def images_of_folder(folder: Path, option: str = "data.path") -> ImageFiles:
    """Every image under a folder, sorted by path; links to folders are followed, each folder is entered once.

    Args:
        folder: Where to look, at any depth.
        option: Which option gave the folder, for the error.

    Raises:
        ValueError: If the folder is absent or holds no image.
        OSError: If a folder in it cannot be listed.
    """
    if not folder.is_dir():
        raise ValueError(f"{option}: {folder} is not a folder; give a folder of images, at any depth")
    found, entered = [], set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        status = os.stat(parent)  # noqa: PTH116 -- os.walk speaks in strings
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders.sort()
        relative = Path(parent).relative_to(folder).parts
        found += [(*relative, file) for file in files if is_image_name(file)]
    if not found:
        raise ValueError(f"{option}: no image under {folder}; suffixes looked for: {', '.join(sorted(IMAGE_SUFFIXES))}")
    return ImageFiles(folder, ["/".join(parts) for parts in sorted(found)])


def _refuse(error: OSError) -> NoReturn:
    """For `os.walk`, which leaves out what it cannot list."""
    raise error


def images_of_list(path: Path) -> ImageFiles:
    """The images that a text file names, one path a line, relative to its folder or absolute; in its order, repeated ones too.

    Raises:
        ValueError: If the file is absent or empty, or a file that it names is absent.
    """
    if not path.is_file():
        raise ValueError(f"data.path: {path} is not a file; give a text file with the path of an image on each line")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"data.path: {path} is no text ({error}); give a text file with a path on each line") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise ValueError(f"data.path: {path} names no image; write the path of one on each line")
    _require_files(path, path.parent, names)
    return ImageFiles(path.parent, names)


def images_of_coco(path: Path) -> ImageFiles:
    """The images that COCO's annotations list, such as `annotations/instances_train2017.json`, from `../train2017`.

    In the order of their file names, which is that of the folder of images.

    Raises:
        ValueError: If the annotations cannot be read, list no image, or an image is absent.
    """
    if not path.is_file():
        raise ValueError(
            f"data.path: {path} is not a file; give COCO's annotations, such as annotations/instances_train2017.json"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = sorted(str(image["file_name"]) for image in content["images"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"data.path: {path} is not COCO's annotations: {error!r}; it must be JSON with a list `images`"
        ) from error
    if not names:
        raise ValueError(f"data.path: {path} lists no image")
    root = path.parent.parent / path.stem.rpartition("_")[2]
    _require_files(path, root, names)
    return ImageFiles(root, names)


def _require_files(listing: Path, root: Path, names: Sequence[str]) -> None:
    """Look for all files, folder by folder: one look at each file would take minutes over a network."""
    by_folder: dict[Path, dict[str, str]] = defaultdict(dict)
    for name in names:
        folder, _, file = name.rpartition("/")
        by_folder[root / folder if folder or not name.startswith("/") else Path("/")][file] = name
    missing: list[str] = []
    for folder_path, files in by_folder.items():
        present = {entry.name for entry in folder_path.iterdir()} if folder_path.is_dir() else set()
        missing += [name for file, name in files.items() if file not in present]
    if missing:
        raise ValueError(
            f"data.path: {len(missing)} of the {len(names)} images of {listing} are absent, such as {root / missing[0]}; "
            "get them, or list those that are there"
        )
