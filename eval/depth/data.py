"""NYU depth in BTS's layout: which pairs of image and depth a split has, and whether all is whole and in millimetres.

nyu/nyu_train.txt, nyu/nyu_test.txt    lines `image depth focal-length`, paths below nyu/; a slash may come first
depth                                  PNG of 16 bits, millimetres, 0 = not measured

The focal length is not used. Loads no torch.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from common.images import evenly, read_lines
from common.launch import usable_cores
from eval.depth import TASK
from eval.findings import Finding, about, merged, refuse
from eval.image_checks import (
    PILLOW_ERRORS,
    by_opencv,
    damage_findings,
    in_processes,
    label_map,
    look_at_all,
    size_findings,
)
from eval.probes.data import read_image
from eval.record import describe_dataset
from eval.result import Dataset

SIZES = {"train": 24_231, "test": 654}  # pairs of BTS's lists
MM_PER_M = 1000
RANGE_MM = (1, 10_000)  # depth that is scored, between these

Box = tuple[int, int, int, int]
"""(top, bottom, left, right) in pixels, half-open; of 480 x 640 pixels, and in proportion of other sizes."""

TRAIN_BOX: Box = (45, 472, 43, 608)  # without the white frame of the images
EIGEN_BOX: Box = (45, 471, 41, 601)  # where depth is scored

_HEIGHT, _WIDTH = 480, 640
_ADDRESS = TASK.downloads[0].address
_DEPTHS_READ = 1000  # depth maps per split, spread evenly, whose values are read even where not everything is decoded
_LEAST_FARTHEST_MM = 100  # where nothing is farther, the file holds metres
_MEDIANS_MM = (1000, 10_000)  # of depth maps; half of NYU's are between 2,000 and 3,000
_MARK = 65_535
_FILES_PER_PROCESS = 64


class Pair(NamedTuple):
    """The files of an image and of its depth."""

    image: Path
    depth: Path


class DepthFacts(NamedTuple):
    """What a depth map shows."""

    path: Path
    farthest_mm: int
    median_mm: float  # of what is measured; NaN where nothing is
    counted: int  # pixels in the protocol's box and range


@dataclass(frozen=True, kw_only=True)
class DepthSplit:
    """The pairs of a split by the names of their images, ascending."""

    root: Path
    name: str
    pairs: Mapping[str, Pair]

    def describe(self) -> Dataset:
        """The split's fingerprint: names with the sizes of both files in bytes."""
        items = (f"{name} {pair.image.stat().st_size} {pair.depth.stat().st_size}" for name, pair in self.pairs.items())
        return describe_dataset(self.root, "NYU depth v2", self.name, items, SIZES[self.name])

    def check_files(self, deep: bool = False, jobs: int = 0) -> list[Finding]:
        """Look at all files, and into depth maps; `deep` decodes everything, in at most so many processes (0: one per core)."""
        images = list(
            look_at_all([pair.image for pair in self.pairs.values()], jobs, f"{self.name} images", by_opencv if deep else None)
        )
        depths = list(look_at_all([pair.depth for pair in self.pairs.values()], jobs, f"{self.name} depth maps", labels=True))
        findings = damage_findings([*images, *depths], self.root, f"get them again from {_ADDRESS}")
        sizes = ((image, depth.size) for image, depth in zip(images, depths, strict=True))
        findings += size_findings(sizes, self.root, "their depth maps", "they were resized, or are other images")
        whole = [fact.path for fact in depths if not fact.damage]
        narrow = [path for path in whole if not _has_16_bits(path)]
        text = "depth maps do not have 16 bits per pixel, which millimetres need"
        findings += about("wrong", text, self._names(narrow), f"get those of {_ADDRESS}")
        readable = sorted(set(whole) - set(narrow))
        read = readable if deep else evenly(readable, _DEPTHS_READ)
        return findings + self._values_findings(read, jobs)

    def _values_findings(self, paths: list[Path], jobs: int) -> list[Finding]:
        """What the values of depth maps give away."""
        workers = min(jobs or usable_cores(), len(paths) // _FILES_PER_PROCESS)
        facts, damaged = [], []
        for path, found in zip(paths, in_processes(workers, look_at_depth, paths), strict=True):
            if isinstance(found, DepthFacts):
                facts.append(found)
            else:
                damaged.append(f"{path.relative_to(self.root).as_posix()} ({found})")
        findings = about("damaged", "depth maps cannot be decoded", damaged, f"get them again from {_ADDRESS}")
        small = [fact.path for fact in facts if 0 < fact.farthest_mm < _LEAST_FARTHEST_MM]
        text = f"depth maps show nothing farther than {_LEAST_FARTHEST_MM} mm, as if they held metres"
        findings += about("wrong", text, self._names(small), "multiply them by 1000: they must hold millimetres")
        marked = [fact.path for fact in facts if fact.farthest_mm == _MARK]
        text = f"depth maps hold {_MARK}, as other data sets mark what was not measured"
        findings += about("wrong", text, self._names(marked), "write 0 there")
        medians = [fact.median_mm for fact in facts if fact.farthest_mm >= _LEAST_FARTHEST_MM]
        if medians and not small and not _MEDIANS_MM[0] <= np.median(medians) <= _MEDIANS_MM[1]:
            text = f"nyu_{self.name}.txt: half of the depth maps have a median depth of {np.median(medians):,.0f} or more mm"
            limits = f"rooms have {_MEDIANS_MM[0]:,} to {_MEDIANS_MM[1]:,}"
            findings.append(
                Finding("wrong", text, advice=f"{limits}, so they are in another unit; convert them to millimetres")
            )
        # A test image of which no pixel counts has no metrics.
        empty = [fact.path for fact in facts if fact.farthest_mm == 0 or (self.name == "test" and not fact.counted)]
        where = " in the part and range that are scored" if self.name == "test" else ""
        return findings + about("wrong", f"depth maps have no valid depth{where}", self._names(empty), "take them off the list")

    def _names(self, paths: Iterable[Path]) -> list[str]:
        return [path.relative_to(self.root).as_posix() for path in paths]


def check_data(root: Path) -> dict[str, DepthSplit]:
    """Both splits; ValueError names everything that is wrong with the lists, and every file that is missing, damaged or wrong."""
    splits, findings = list_splits(root)
    refuse(findings)
    refuse(merged(finding for split in splits.values() for finding in split.check_files()))
    return splits


def examine(folder: Path, deep: bool, jobs: int) -> list[Finding]:
    """Everything that is wrong with both splits."""
    splits, findings = list_splits(folder)
    return findings + [finding for split in splits.values() for finding in split.check_files(deep, jobs)]


def list_splits(root: Path) -> tuple[dict[str, DepthSplit], list[Finding]]:
    """The pairs of both lists whose files are there, and what is wrong with the lists."""
    if not root.is_dir():
        text = f"{root}: no such folder; the data of depth is a folder with nyu_train.txt, nyu_test.txt and NYU's images"
        return {}, [Finding("missing", text, advice=f"get it from {_ADDRESS}")]
    splits: dict[str, DepthSplit] = {}
    findings: list[Finding] = []
    for name, full in SIZES.items():
        pairs, more = _read_list(root, name)
        findings += more
        if pairs:
            splits[name] = DepthSplit(root=root, name=name, pairs=pairs)
            if len(pairs) != full:
                findings.append(Finding("subset", f"{name}: {len(pairs):,} of {full:,} pairs of image and depth"))
    if len(splits) == len(SIZES):
        files = {pair.image.resolve() for pair in splits["train"].pairs.values()}
        shared = [name for name, pair in splits["test"].pairs.items() if pair.image.resolve() in files]
        findings += about("wrong", "images are in both nyu_train.txt and nyu_test.txt", shared, "test on other images")
    return splits, findings


def _read_list(root: Path, name: str) -> tuple[dict[str, Pair], list[Finding]]:
    path = root / f"nyu_{name}.txt"
    if not path.is_file():
        advice = f"get it from {_ADDRESS}, where it is nyudepthv2_{name}_files_with_gt.txt"
        return {}, [Finding("missing", f"{root} has no {path.name}", advice=advice)]
    try:
        lines = read_lines(path)
    except ValueError as error:
        return {}, [Finding("damaged", str(error), advice=f"get it again from {_ADDRESS}")]
    if not lines:
        return {}, [Finding("wrong", f"{path} is empty", advice=f"get it again from {_ADDRESS}")]
    read = {line: _read_line(line) for line in lines}
    findings = about(
        *("wrong", f"{path} has lines other than `image depth focal-length`, with paths below {root}"),
        [line for line, found in read.items() if found is None],
        "correct them",
    )
    listed = [found for line in lines if (found := read[line]) is not None]
    twice = [image for image, count in Counter(image for image, _ in listed).items() if count > 1]
    findings += about("wrong", f"{path.name} names images more than once", twice, "leave one line of each")
    bare = [image for image, depth in listed if depth == "None"]
    findings += about("wrong", f"{path.name} names images without a depth map (`None`)", bare, "take them off the list")
    listed = [(image, depth) for image, depth in listed if depth != "None"]
    other = [depth for _, depth in listed if not depth.lower().endswith(".png")]
    findings += about("wrong", f"{path.name} names depth maps that are not PNG", other, "make PNG of 16 bits in millimetres")
    for what, names in (("images", [image for image, _ in listed]), ("depth maps", [depth for _, depth in listed])):
        absent = [one for one in dict.fromkeys(names) if not (root / one).is_file()]
        findings += about("missing", f"{root} lacks {what} that {path.name} names", absent, f"get them from {_ADDRESS}")
    pairs = {image: Pair(root / image, root / depth) for image, depth in sorted(listed)}
    return {image: pair for image, pair in pairs.items() if pair.image.is_file() and pair.depth.is_file()}, findings


def _read_line(line: str) -> tuple[str, str] | None:
    """The paths of image and depth; None for a line that is none of such a list."""
    image, depth, focal, *rest = [*line.split(), "", "", ""]
    try:
        usable = not any(rest) and 0 < float(focal) < math.inf
    except ValueError:
        return None
    paths = [PurePosixPath(part.lstrip("/")) for part in (image, depth)]
    if not usable or any(".." in path.parts for path in paths):
        return None
    return str(paths[0]), str(paths[1])


def _has_16_bits(path: Path) -> bool:
    """Whether a PNG says so in its header."""
    with path.open("rb") as stream:
        return stream.read(25)[24:] == b"\x10"


def look_at_depth(path: Path) -> DepthFacts | str:
    """What a depth map shows, or why it cannot be decoded."""
    try:
        depth_HW = label_map(path)
    except PILLOW_ERRORS as error:
        return " ".join(str(error).split())
    top, bottom, left, right = scaled_box(EIGEN_BOX, *depth_HW.shape)
    box_HW = depth_HW[top:bottom, left:right]
    measured = depth_HW[depth_HW > 0]
    return DepthFacts(
        path=path,
        farthest_mm=int(depth_HW.max()),
        median_mm=float(np.median(measured)) if measured.size else math.nan,
        counted=int(((box_HW > RANGE_MM[0]) & (box_HW < RANGE_MM[1])).sum()),
    )


def scaled_box(box: Box, height: int, width: int) -> Box:
    """One of the boxes for an image of this size."""
    top, bottom, left, right = box
    return top * height // _HEIGHT, bottom * height // _HEIGHT, left * width // _WIDTH, right * width // _WIDTH


def read_pair(pair: Pair) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """An image [H, W, 3], and its depth [H, W] in millimetres, 0 where nothing was measured; ValueError for files that do not fit.

    A run reads the values of some depth maps before it starts, of the others here.
    """
    image = read_image(pair.image)
    try:
        depth_HW = label_map(pair.depth).astype(np.int32)
    except PILLOW_ERRORS as error:
        raise ValueError(f"{pair.depth}: not a readable depth map ({error}); get it again from {_ADDRESS}") from error
    if depth_HW.shape != image.size[::-1]:
        raise ValueError(f"{pair.depth}: depth of shape {depth_HW.shape} for an image of {image.height} x {image.width}")
    if depth_HW.max() < _LEAST_FARTHEST_MM:
        reasons = "it has no valid depth, which takes it off the list, or holds metres instead of millimetres"
        raise ValueError(f"{pair.depth}: nothing is farther than {_LEAST_FARTHEST_MM} mm; {reasons}")
    return np.array(image), depth_HW
