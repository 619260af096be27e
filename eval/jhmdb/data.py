"""JHMDB: which videos there are, their frames and joints, and whether they are whole and fit each other.

ROOT/splits/CLASS_test_split1.txt                    lines `VIDEO.avi 2`: 2 for a test video, 1 for a training video
ROOT/Rename_Images/CLASS/VIDEO/00001.png             frames
ROOT/joint_positions/CLASS/VIDEO/joint_positions.mat pos_img [2, 15, T], pixels counted from 1; some joints are outside the frame

Loads no torch.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from common.files import check_name
from common.images import is_hidden, read_lines
from eval import image_checks
from eval.findings import Finding, about, merged, refuse
from eval.jhmdb import TASK
from eval.propagation.videos import check_numbering
from eval.record import describe_dataset
from eval.result import Dataset

logger = logging.getLogger(__name__)

Array = npt.NDArray[np.float64]

JOINTS = (
    *("neck", "belly", "face", "right shoulder", "left shoulder", "right hip", "left hip", "right elbow", "left elbow"),
    *("right knee", "left knee", "right wrist", "left wrist", "right ankle", "left ankle"),
)
TEST_VIDEOS = 268  # of split 1

_TEST = "2"
_MOST_FRAMES = 10_000  # JHMDB's videos have 40 at most; a file of a few bytes may state any number
_LIST_SUFFIX = "_test_split1.txt"
_DOWNLOAD = f"get it from {TASK.downloads[0].address}"


@dataclass(frozen=True, kw_only=True)
class JointVideo:
    """A video `CLASS/VIDEO`: T frames of one (height, width), and the places of its joints in pixels from 0 [2, J, T]."""

    name: str
    frames: tuple[Path, ...]
    places_2JT: Array
    size: tuple[int, int]


def find_videos(root: Path, listing: Path | None = None) -> list[JointVideo]:
    """The listed videos; ValueError names all that is wrong with them. What is unusual about their joints is logged."""
    videos, findings = _check_videos(root, listing, deep=False, jobs=0)
    refuse(findings, root)
    for finding in _check_joints(videos):
        logger.warning("%s: %s", root, finding)
    return videos


def examine(folder: Path, deep: bool = False, jobs: int = 0) -> list[Finding]:
    """Everything that is wrong with the test videos of split 1; with `deep`, decode their frames too."""
    try:
        videos, findings = _check_videos(folder, None, deep, jobs)
    except ValueError as error:
        return [Finding("missing", str(error), advice=_DOWNLOAD)]
    if len(videos) != TEST_VIDEOS:
        findings.append(Finding("subset", f"test: {len(videos)} of {TEST_VIDEOS} videos"))
    return findings


def describe(root: Path, videos: Sequence[JointVideo], listing: Path | None) -> Dataset:
    """The fingerprint of the videos: names with numbers and sizes of frames, and their joints."""
    items = [f"{video.name} {len(video.frames)} frames {video.size[1]}x{video.size[0]}" for video in videos]
    joints = ", ".join(f"{video.places_2JT.sum():.6f}" for video in videos)
    split = "test of split 1" if listing is None else listing.stem
    # A list of as many other videos is not the whole of the split.
    other = listing is not None and (root / "splits").is_dir() and video_names(root, listing) != video_names(root, None)
    return describe_dataset(root, "JHMDB", split, items, TEST_VIDEOS, other, content=joints)


def video_names(root: Path, listing: Path | None) -> list[str]:
    """CLASS/VIDEO of each video that a list names, or of the test videos of split 1, sorted; ValueError if there are none."""
    if listing is not None:
        named = [(listing, "/".join(line.split()[-1].rstrip("/").split("/")[-2:])) for line in read_lines(listing)]
    else:
        folder = root / "splits"
        lists = sorted(path for path in folder.glob(f"*{_LIST_SUFFIX}") if not is_hidden(path.name))
        if not lists:
            raise ValueError(f"{folder} has no CLASS{_LIST_SUFFIX}, the lists of split 1")
        named = [(path, name) for path in lists for name in _test_videos(path)]
    if not named:
        raise ValueError(f"{listing or root / 'splits'} names no video")
    for path, name in named:
        group, slash, video = name.partition("/")
        if not slash:
            raise ValueError(f"{path}: {name!r} is not CLASS/VIDEO")
        check_name(group, f"{path}: class")
        check_name(video, f"{path}: video")
    return sorted({name for _, name in named})


def _test_videos(path: Path) -> list[str]:
    found = []
    for line in read_lines(path):
        video, _, part = line.rpartition(" ")
        if part not in ("0", "1", _TEST) or not video.strip():
            raise ValueError(f"{path}: {line!r} is not `VIDEO.avi 1` (training) or `VIDEO.avi 2` (test)")
        if part == _TEST:
            found.append(f"{path.name.removesuffix(_LIST_SUFFIX)}/{video.strip().removesuffix('.avi')}")
    return found


def read_joints(path: Path) -> Array:
    """Places of the joints in pixels from 0 [2, J, T]; ValueError, which names the file, if it is damaged or of another shape.

    No other variable of the file is read, and none that is not an array of numbers.
    """
    from scipy.io import loadmat, whosmat  # slow to load

    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        stated = {name: (shape, kind) for name, shape, kind in whosmat(path)}
        shape, kind = stated.get("pos_img", ((), "absent"))
        if (
            kind not in ("double", "single")
            or len(shape) != 3
            or shape[:2] != (2, len(JOINTS))
            or not 1 <= shape[2] <= _MOST_FRAMES
        ):
            raise ValueError(f"pos_img is {kind} {list(shape)}, not numbers [2, {len(JOINTS)}, frames]")
        places_2JT = np.asarray(loadmat(path, variable_names=["pos_img"])["pos_img"], np.float64) - 1
    except Exception as error:  # scipy and zlib raise a dozen types for damage
        raise ValueError(f"{path}: not readable as joint positions ({' '.join(str(error).split())})") from error
    if not np.isfinite(places_2JT).all():
        raise ValueError(f"{path}: places of joints that are not finite")
    return places_2JT


def _check_videos(root: Path, listing: Path | None, deep: bool, jobs: int) -> tuple[list[JointVideo], list[Finding]]:
    """The videos that can be used, and findings about all; ValueError if the list names none."""
    names = video_names(root, listing)
    unlist = f"or take them off {listing or 'the lists in splits'}"
    frames: dict[str, list[Path]] = {}
    joints: dict[str, Array] = {}
    findings = []
    for name in names:
        images, found = image_checks.list_images(root / "Rename_Images" / name, ".png", root)
        frames[name] = list(images.values())
        findings += [*found, *about("missing", "frames are missing", check_numbering(frames[name], root), _DOWNLOAD)]
        try:
            joints[name] = read_joints(root / "joint_positions" / name / "joint_positions.mat")
        except ValueError as error:
            findings.append(Finding("damaged", str(error), advice=f"{_DOWNLOAD}, {unlist}"))
    absent = [name for name in names if not frames[name]]
    findings += about("missing", "videos have no frames (*.png) in Rename_Images", absent, f"{_DOWNLOAD}, {unlist}")
    decode = image_checks.by_opencv if deep else None
    facts = list(image_checks.look_at_all([path for paths in frames.values() for path in paths], jobs, "JHMDB frames", decode))
    sizes = {fact.path: fact.size for fact in facts}
    firsts = ((fact, sizes[fact.path.parent / frames[_name_of(fact.path)][0].name]) for fact in facts)
    findings += image_checks.damage_findings(facts, root, _DOWNLOAD)
    findings += image_checks.size_findings(firsts, root, "the first frame of their video")
    videos = []
    for name in names:
        size = sizes[frames[name][0]] if frames[name] else None
        if size is not None and name in joints:
            videos.append(JointVideo(name=name, frames=tuple(frames[name]), places_2JT=joints[name], size=size[::-1]))
    return videos, merged([*findings, *_check_joints(videos)])


def _name_of(frame: Path) -> str:
    return f"{frame.parent.parent.name}/{frame.parent.name}"


def _check_joints(videos: Iterable[JointVideo]) -> list[Finding]:
    """Whether joints fit their frames."""
    short, lost, far, outside, further = [], [], [], [], []
    for video in videos:
        count = video.places_2JT.shape[2]
        limits_2 = np.array(video.size[::-1], np.float64)[:, None, None]
        off_JT: npt.NDArray[np.bool_] = np.any((video.places_2JT < 0) | (video.places_2JT > limits_2 - 1), axis=0)
        far_JT: npt.NDArray[np.bool_] = np.any((video.places_2JT < -limits_2) | (video.places_2JT > 2 * limits_2), axis=0)
        short += (
            [f"{video.name} ({count} of joints, {len(video.frames)} of images)"] if not 2 <= count <= len(video.frames) else []
        )
        further += [f"{video.name} ({len(video.frames) - count})"] if count < len(video.frames) else []
        far += [_first_joint(video, far_JT)] if far_JT.any() else []
        lost += [video.name] if off_JT[:, 0].all() else []
        outside += [f"{video.name} ({off_JT.sum()} of {off_JT.size})"] if off_JT.any() else []
    return [
        *about("wrong", "videos have fewer frames than joint positions, or only one", short, _DOWNLOAD),
        *about(
            "wrong", "joints lie farther outside their frame than it is large", far, "they must be in pixels, counted from 1"
        ),
        *about("wrong", "videos show no joint in the first frame, so that there is nothing to follow", lost, _DOWNLOAD),
        *about("note", "videos have joints outside the frame, which are scored where labels are found", outside),
        *about("note", "videos have frames without joints at their end, which are not scored", further),
    ]


def _first_joint(video: JointVideo, chosen_JT: npt.NDArray[np.bool_]) -> str:
    joint, frame = np.argwhere(chosen_JT)[0]
    x, y = video.places_2JT[:, joint, frame] + 1
    return (
        f"{video.name} ({JOINTS[joint]} of frame {frame + 1} at {x:.1f}, {y:.1f} in {video.size[1]} x {video.size[0]} pixels)"
    )
