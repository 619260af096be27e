"""VIP_Fine: which videos there are, and whether frames and masks are whole and fit each other.

ROOT/lists/val_videos.txt                       a video per line
ROOT/Images/videosN/*.jpg                       frames
ROOT/Annotations/Category_ids/videosN/*.png     masks of every frame: 0 background, 1 to 19 parts of persons, 255 void

Loads no torch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from common.files import check_name
from common.images import read_lines
from eval.findings import Finding, about, merged, refuse
from eval.propagation.videos import VideoFolders, VideoSequence, check_videos
from eval.record import describe_dataset
from eval.result import Dataset
from eval.vip import TASK
from eval.vip.protocol import CLASSES

VAL_VIDEOS = 50

_LIST = "lists/val_videos.txt"
_DOWNLOAD = f"get it from {TASK.downloads[0].address}"


def find_videos(root: Path, video_list: Path | None = None) -> list[VideoSequence]:
    """The listed videos; ValueError names all that is wrong with them."""
    videos, findings = _check_videos(root, video_list, deep=False, jobs=0)
    refuse(findings, root)
    return videos


def examine(folder: Path, deep: bool = False, jobs: int = 0) -> list[Finding]:
    """Everything that is wrong with the validation videos; with `deep`, decode their frames too."""
    try:
        videos, findings = _check_videos(folder, None, deep, jobs)
    except ValueError as error:
        return [Finding("missing", str(error), advice=_DOWNLOAD)]
    if len(videos) != VAL_VIDEOS:
        findings.append(Finding("subset", f"val: {len(videos)} of {VAL_VIDEOS} videos"))
    return findings


def describe(root: Path, videos: Sequence[VideoSequence], video_list: Path | None) -> Dataset:
    items = [f"{video.name} {len(video.frames)} frames {video.size[1]}x{video.size[0]}" for video in videos]
    # A list of as many other videos is not the whole of val.
    other = video_list is not None and (root / _LIST).is_file() and video_names(root, video_list) != video_names(root, None)
    return describe_dataset(root, "VIP", "val" if video_list is None else video_list.stem, items, VAL_VIDEOS, other)


def video_names(root: Path, video_list: Path | None) -> list[str]:
    """The videos of a list, sorted; ValueError if it is missing, names none, or has a name that leads elsewhere."""
    path = video_list or root / _LIST
    names = [line.split()[-1].rstrip("/").rpartition("/")[2] for line in read_lines(path)]
    if not names:
        raise ValueError(f"{path} names no video")
    return sorted({check_name(name, f"{path}: video") for name in names})


def _check_videos(root: Path, video_list: Path | None, deep: bool, jobs: int) -> tuple[list[VideoSequence], list[Finding]]:
    folders = VideoFolders(
        root=root,
        frames_folder=root / "Images",
        masks_folder=root / "Annotations/Category_ids",
        advice=_DOWNLOAD,
        listing=_LIST if video_list is None else str(video_list),
    )
    videos, findings, ids = check_videos(folders, video_names(root, video_list), "all", deep=deep, jobs=jobs)
    return videos, merged([*findings, *_check_classes(root, ids)])


def _check_classes(root: Path, ids: Mapping[Path, frozenset[int]]) -> list[Finding]:
    beyond = {path: [one for one in sorted(found) if one >= len(CLASSES)] for path, found in ids.items()}
    named = [f"{path.relative_to(root).as_posix()} ({', '.join(map(str, more[:5]))})" for path, more in beyond.items() if more]
    advice = f"VIP has the classes 0 to {len(CLASSES) - 1}, and 255 where nothing is labelled"
    return about("wrong", "masks have other numbers than classes", named, advice)
