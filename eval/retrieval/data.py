"""Revisited Oxford5k and Paris6k: the images, and for each query which of them are right, and how hard they are to find.

roxford5k/gnd_roxford5k.pkl    `imlist` and `qimlist`, names of images and queries without ending, and `gnd`: for each query
                               `bbx` (left, top, right, bottom in pixels) and places in `imlist`, `easy`, `hard`, `junk`
roxford5k/jpg/NAME.jpg

The pickle is read without running what is in it. Loads no torch.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones.pickles import unpickle
from common.files import check_name, text_sha256
from common.images import read_file
from eval.findings import Finding, about, refuse
from eval.image_checks import are_inside, by_opencv, damage_findings, look_at_all
from eval.record import describe_dataset
from eval.result import Dataset

Places = npt.NDArray[np.int64]

NAMES = {"roxford5k": "Oxford5k", "rparis6k": "Paris6k"}
SIZES = {"roxford5k": (4993, 70), "rparis6k": (6322, 70)}  # images and queries
SORTS = ("easy", "hard", "junk")
LEVELS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Easy": (("easy",), ("junk", "hard")),
    "Medium": (("easy", "hard"), ("junk",)),
    "Hard": (("hard",), ("junk", "easy")),
}
"""Which sorts of images are right at a level, and which do not count."""

_GET = "get them by the links of http://cmp.felk.cvut.cz/revisitop; all images lie in jpg itself"
_MOST_OUTSIDE = 0.02  # of the longer side, by which a query's box may pass the image; no protocol uses the boxes


@dataclass(frozen=True, kw_only=True)
class Landmarks:
    """A set of N images and Q queries; `sorts` has for each query the places of its easy, hard and junk images."""

    root: Path
    key: str  # `roxford5k` or `rparis6k`
    images: tuple[str, ...]
    queries: tuple[str, ...]
    boxes: tuple[npt.NDArray[np.float64], ...]
    sorts: tuple[Mapping[str, Places], ...]

    @property
    def paths(self) -> list[Path]:
        """The files of the images, then those of the queries, which may repeat."""
        return [self.root / "jpg" / f"{name}.jpg" for name in (*self.images, *self.queries)]

    @property
    def query_items(self) -> list[str]:
        """The queries with their numbers: one image may be several, with several boxes."""
        return [f"{number:03} {name}" for number, name in enumerate(self.queries)]

    def describe(self) -> Dataset:
        """The fingerprint: the queries, and a digest of the sizes of all files and of what is right."""
        sizes = [f"{path.name} {path.stat().st_size}" for path in self.paths]
        truth = [f"{sort} {places.tolist()}" for sorts in self.sorts for sort, places in sorts.items()]
        images, queries = SIZES[self.key]
        digest, restricted = text_sha256("\n".join(sizes + truth)), len(self.images) != images
        return describe_dataset(self.root, NAMES[self.key], "revisited", self.query_items, queries, restricted, digest)

    def check_files(self, deep: bool = False, jobs: int = 0) -> list[Finding]:
        """Look at all images, and whether the boxes of the queries lie in theirs."""
        present = [path for path in dict.fromkeys(self.paths) if path.is_file()]
        absent = sorted(path.name for path in set(self.paths) - set(present))
        findings = about("missing", f"{self.root / 'jpg'} lacks images that gnd_{self.key}.pkl names", absent, _GET)
        facts = list(look_at_all(present, jobs, f"{self.key} images", by_opencv if deep else None))
        findings += damage_findings(facts, self.root, _GET)
        sizes = {fact.path.stem: fact.size for fact in facts if fact.size}
        outside = [
            f"{name} {box.tolist()}"
            for name, box in zip(self.queries, self.boxes, strict=True)
            if name in sizes and not are_inside(box[None], sizes[name], _MOST_OUTSIDE * max(sizes[name]))
        ]
        text = f"gnd_{self.key}.pkl has boxes outside of the queries' images"
        return findings + about("wrong", text, outside, "they are of other images, or the images were resized")


def check_data(root: Path) -> Landmarks:
    """ValueError names everything that is wrong with the ground truth or the images."""
    found, findings = read_landmarks(root)
    refuse(findings)
    assert found is not None
    refuse(found.check_files())
    return found


def examine(folder: Path, deep: bool, jobs: int) -> list[Finding]:
    """Everything that is wrong with the set."""
    found, findings = read_landmarks(folder)
    return findings + (found.check_files(deep, jobs) if found else [])


def read_landmarks(root: Path) -> tuple[Landmarks | None, list[Finding]]:
    """The set of a folder by its ground truth, or why there is none."""
    present = [key for key in NAMES if (root / f"gnd_{key}.pkl").is_file()]
    if len(present) != 1:
        what = f"it has {'both' if present else 'neither'}" if root.is_dir() else "no such folder; give one with"
        text = f"{root}: {what} gnd_roxford5k.pkl {'and' if present else 'or'} gnd_rparis6k.pkl"
        return None, [Finding("missing", text, advice=f"--data is a folder with one of them and images in jpg; {_GET}")]
    path = root / f"gnd_{present[0]}.pkl"
    content = read_file(path)
    try:
        found = _landmarks(root, present[0], unpickle(io.BytesIO(content), len(content), {}))
    except Exception as error:  # a scrambled pickle raises whatever Python has
        return None, [Finding("wrong", f"{path}: {' '.join(str(error).split()) or repr(error)}", advice=_GET)]
    counts = zip(("images", "queries"), (len(found.images), len(found.queries)), SIZES[found.key], strict=True)
    return found, [Finding("subset", f"{count:,} of {full:,} {what}") for what, count, full in counts if count != full]


def _landmarks(root: Path, key: str, content: Any) -> Landmarks:
    """What a ground truth holds; ValueError where it is another file, or contradicts itself."""
    if not isinstance(content, dict) or not {"gnd", "imlist", "qimlist"} <= content.keys():
        raise ValueError("it is not a dictionary of gnd, imlist and qimlist")
    for name in ("imlist", "qimlist"):
        if not isinstance(content[name], list) or not all(type(listed) is str for listed in content[name]):
            raise ValueError(f"{name} is not a list of names")
    images, queries = (tuple(check_name(listed, name) for listed in content[name]) for name in ("imlist", "qimlist"))
    truth = content["gnd"]
    if not isinstance(truth, list) or len(truth) != len(queries) or not truth or len(set(images)) < len(images):
        raise ValueError("gnd must have an entry for each name in qimlist, and imlist no name twice")
    boxes, sorts = [], []
    for number, (query, entry) in enumerate(zip(queries, truth, strict=True)):
        place = f"gnd[{number}] ({query})"
        if not isinstance(entry, dict) or not {"bbx", *SORTS} <= entry.keys():
            has = ", ".join(sorted(map(str, entry))) if isinstance(entry, dict) else type(entry).__name__
            raise ValueError(f"{place} has {has}, as in another version; the revisited one has bbx, {', '.join(SORTS)}")
        sorts.append({sort: _places(entry[sort], len(images), f"{place}, {sort}") for sort in SORTS})
        listed = np.concatenate(list(sorts[-1].values()))
        if len(np.unique(listed)) < len(listed):
            raise ValueError(f"{place} has an image twice among {', '.join(SORTS)}")
        boxes.append(np.asarray(entry["bbx"]))
        if boxes[-1].shape != (4,) or boxes[-1].dtype.kind not in "iuf" or not (boxes[-1][:2] < boxes[-1][2:]).all():
            raise ValueError(f"{place}, bbx must be left, top, right, bottom in pixels")
    for level, (right, _) in LEVELS.items():
        if not any(len(of_query[sort]) for of_query in sorts for sort in right):
            raise ValueError(f"no query has an image that is right at the level {level}")
    return Landmarks(root=root, key=key, images=images, queries=queries, boxes=tuple(boxes), sorts=tuple(sorts))


def _places(listed: Any, count: int, where: str) -> Places:
    places = np.asarray(listed)
    if places.size == 0:
        return np.zeros(0, np.int64)
    if places.ndim != 1 or places.dtype.kind not in "iu" or places.min() < 0 or places.max() >= count:
        raise ValueError(f"{where} must be a list of places in imlist, 0 to {count - 1}; this is of another version")
    return places.astype(np.int64)
