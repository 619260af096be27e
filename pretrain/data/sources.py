"""The images to pretrain on, each read as the content of an image file; a run continues only with the same names in this order."""

import io
import json
import logging
import operator
import os
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from braceexpand import braceexpand

from common.cifar import LAYOUTS, find_layout, picture_planes, present_train_files, read_records
from common.distributed import rank, world_size
from common.files import CONTROLS, check_name, parse_json, text_sha256, write_text_atomically
from common.images import IMAGE_SUFFIXES, is_hidden, is_image_name, read_file, read_lines, walk_files
from pretrain.config import DataConfig

logger = logging.getLogger(__name__)

TAR_SUFFIX = ".tar"
_LARGEST_HEADER = 2**20  # bytes; names are far shorter


class ImageFiles:
    """Images in files of their own, named by their paths, relative to `root` or absolute; other sources are read in other ways."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        if (name := next(filter(CONTROLS.search, names), None)) is not None:
            raise ValueError(f"{str(root / name)!a}: the name of an image must not have control characters; rename it")
        self.root = root
        # An array, which forked workers share. Of a list each worker would get a copy: Python counts references inside the strings.
        self.names: npt.NDArray[np.str_] = np.array(names, dtype=np.str_)

    def load(self, index: int) -> bytes:
        """The content of an image file; an OSError if it cannot be read."""
        return read_file(Path(self.describe(index)))

    def describe(self, index: int) -> str:
        """Where the image is, for messages."""
        return str(self.root / self.names[index])


def open_source(config: DataConfig) -> ImageFiles:
    """The images that `data.path` stands for; a ValueError if they are not of the given kind, incomplete or empty."""
    path = config.path
    kind = detect_kind(path) if config.kind == "auto" else config.kind
    kinds: dict[str, Callable[[Path], ImageFiles]] = {
        "folder": images_of_folder,
        "list": images_of_list,
        "coco": images_of_coco,
        "cifar": CifarImages,
        "tar": lambda shards: TarImages(find_shards(shards), config.tar_index),
    }
    return kinds[kind](path)


def detect_kind(path: Path) -> str:
    """The kind of data set that a path looks like: any but `auto`."""
    if path.is_dir():
        archives = {"cifar": find_layout(path), "tar": _shards_in(path)}
        kinds = [kind for kind, there in archives.items() if there]
        if kinds and any(is_image_name(name) for _, names in walk_files(path) for name in names):
            kinds.append("folder")
        if len(kinds) > 1:
            raise ValueError(f"data.path: {path} looks like {' and '.join(kinds)}; say which by --data.kind")
        return kinds[0] if kinds else "folder"
    if path.suffix.lower() == TAR_SUFFIX:
        return "tar"
    if not path.is_file():
        wanted = "a folder of images, a text file of their paths, COCO's annotations, a folder of CIFAR's binary files, or tar shards"
        raise ValueError(f"data.path: {path} does not exist; give {wanted}")
    return "coco" if path.suffix.lower() == ".json" else "list"


def images_of_folder(folder: Path, option: str = "data.path") -> ImageFiles:
    """Every image under a folder, which `option` gave, sorted by path; links to folders are followed, each folder is entered once."""
    if not folder.is_dir():
        raise ValueError(f"{option}: {folder} is not a folder; give a folder of images, at any depth")
    found: list[tuple[str, ...]] = []
    for parent, names in walk_files(folder):
        found += [(*Path(parent).relative_to(folder).parts, name) for name in filter(is_image_name, names)]
    if not found:
        raise ValueError(f"{option}: no image under {folder}; suffixes looked for: {', '.join(sorted(IMAGE_SUFFIXES))}")
    return ImageFiles(folder, ["/".join(parts) for parts in sorted(found)])


def images_of_list(path: Path) -> ImageFiles:
    """The images of a text file with one path a line, relative to its folder or absolute, in its order; also repeated ones."""
    try:
        names = read_lines(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"data.path: {error}; give a text file with the path of an image on each line") from error
    return _files_of_listing(path, path.parent, names)


def images_of_coco(path: Path) -> ImageFiles:
    """The images that COCO's `annotations/instances_train2017.json` lists, from `../train2017`, sorted as in that folder."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = sorted(str(image["file_name"]) for image in content["images"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        wanted = "COCO's annotations, JSON with a list `images`, such as annotations/instances_train2017.json"
        raise ValueError(f"data.path: {path} is not {wanted}: {type(error).__name__}: {error}") from error
    for name in names:
        check_name(name, f"data.path: {path}: file_name", nested=True)
    return _files_of_listing(path, path.parent.parent / path.stem.rpartition("_")[2], names)


def _files_of_listing(listing: Path, root: Path, names: Sequence[str]) -> ImageFiles:
    """The images of these names below `root`, all of which must be there."""
    if not names:
        raise ValueError(f"data.path: {listing} names no image")
    images = ImageFiles(root, names)
    # Folder by folder: one look at each file would take minutes over a network.
    folders = {name: (root / name).parent for name in names}
    present = {folder: set(os.listdir(folder) if folder.is_dir() else ()) for folder in set(folders.values())}  # noqa: PTH208
    if missing := [name for name in names if name.rpartition("/")[2] not in present[folders[name]]]:
        found = f"{len(missing)} of the {len(names)} images of {listing} are absent, such as {root / missing[0]}"
        raise ValueError(f"data.path: {found}; get them, or list those that are there")
    return images


class CifarImages(ImageFiles):
    """The training images of CIFAR's binary archives without labels, in memory; fewer than all training files will do."""

    def __init__(self, root: Path) -> None:
        layout = find_layout(root)
        if layout is None:
            expected = " or ".join(f"{layout.name}'s {layout.test_file}" for layout in LAYOUTS)
            raise ValueError(f"data.path: {root} does not hold {expected}; give the folder of a binary archive")
        records, names = read_records(root, layout, present_train_files(root, layout))
        super().__init__(root, names)
        self._planes_N3HW = picture_planes(records, layout)

    def load(self, index: int) -> bytes:
        """The pixels as a PPM file, which is a header of one line before them."""
        pixels_HW3 = self._planes_N3HW[index].transpose(1, 2, 0)
        return b"P6 %d %d 255\n" % (pixels_HW3.shape[1], pixels_HW3.shape[0]) + pixels_HW3.tobytes()


class TarImages(ImageFiles):
    """The images of uncompressed tar shards, as webdataset writes them, read at random; what else is in them is ignored.

    Where each image begins is read once per shard and kept in the folder `cache`, so that their order is a function of seed and
    epoch, as for all sources; webdataset itself only streams shards.
    """

    def __init__(self, shards: Sequence[Path], cache: Path) -> None:
        # Processes begin at different shards, and so share the work.
        first = rank() * len(shards) // world_size()
        indices = {shard: _cached_index(shard, cache) for shard in (*shards[first:], *shards[:first])}
        found = [(number, *image) for number, shard in enumerate(shards) for image in indices[shard]]
        images = [image for image in found if not any(part != "." and is_hidden(part) for part in image[1].split("/"))]
        if not images:
            raise ValueError(f"data.path: no image in the {len(shards)} shards, such as {shards[0]}")
        super().__init__(Path(), [f"{shards[number].name}/{name}" for number, name, *_ in images])
        # Number of the shard, first byte and length of each image.
        self._shards, self._places_N3 = shards, np.array([(number, *place) for number, _, *place in images])

    def load(self, index: int) -> bytes:
        shard, start, length = self._places_N3[index].tolist()
        with self._shards[shard].open("rb") as stream:
            stream.seek(start)
            content = stream.read(length)
        if len(content) != length:
            raise OSError(f"the shard ends after {len(content)} of the image's {length} bytes")
        return content

    def describe(self, index: int) -> str:
        return f"{self._shards[self._places_N3[index, 0]].parent}/{self.names[index]}"


def find_shards(path: Path) -> list[Path]:
    """The shards that a path names, sorted: a .tar file, a folder of them, or `shard-{000..012}.tar` and `{train,val}.tar`."""
    if path.is_dir():
        if shards := _shards_in(path):
            return shards
        raise ValueError(f"data.path: no {TAR_SUFFIX} file in {path}")
    try:
        shards = sorted(set(map(Path, braceexpand(str(path)))))
    except ValueError as error:
        raise ValueError(f"data.path: {path}: {error}; write shards such as shard-{{000..012}}.tar or {{a,b}}.tar") from error
    if missing := [shard for shard in shards if not shard.is_file()]:
        raise ValueError(f"data.path: {len(missing)} of {len(shards)} shards are absent, such as {missing[0]}")
    return shards


def _shards_in(folder: Path) -> list[Path]:
    named = (path for path in folder.iterdir() if path.suffix.lower() == TAR_SUFFIX and not is_hidden(path.name))
    return sorted(path for path in named if path.is_file())


def _cached_index(shard: Path, cache: Path) -> list[tuple[str, int, int]]:
    """The name, first byte and length of each image of a shard, from the cache if it has those of the file as it is now."""
    status = shard.stat()
    digest = text_sha256(f"{shard.resolve()} {status.st_size} {status.st_mtime_ns}")
    path = cache / f"{shard.stem}-{digest[:16]}.json"
    try:
        cached = parse_json(path.read_text(encoding="utf-8")) if path.is_file() else None
        places = [(str(name), operator.index(start), operator.index(length)) for name, start, length in cached or ()]
    except (ValueError, TypeError):
        cached = None
    if cached is None or any(min(place) < 0 or sum(place) > status.st_size for _, *place in places):
        logger.info("reading where the images of %s are", shard)
        places = _read_index(shard)
        write_text_atomically(path, json.dumps(places))
    return places


class _Headers(io.FileIO):
    """A tar file of which only headers are read: tarfile takes an extended one of whatever size it states."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)


def _read_index(shard: Path) -> list[tuple[str, int, int]]:
    with _Headers(shard) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                members = [member for member in archive if member.isreg() and is_image_name(member.name)]
                end = archive.offset
        except (tarfile.TarError, EOFError) as error:
            raise ValueError(
                f"data.path: {shard} is damaged or not an uncompressed tar file: {error}; write it again"
            ) from error
        stream.seek(end)
        # tarfile takes a header that is cut off, or none at all, for the end of the archive.
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise ValueError(f"data.path: {shard} is damaged at byte {end}, where a tar file neither goes on nor ends")
    return [(member.name, member.offset_data, member.size) for member in members]
