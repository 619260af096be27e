"""Data sets with the layout of YouTube-VOS, and the servers that score where masks are withheld. Loads no torch.

ROOT/valid/JPEGImages/VIDEO/*.jpg    frames
ROOT/valid/Annotations/VIDEO/*.png   masks: of the frames in which objects begin, or of every frame
ROOT/valid/meta.json                 {"videos": {VIDEO: ...}}; without it, the folders in Annotations are the videos
"""

from pathlib import Path
from typing import NamedTuple

from common.files import check_name, parse_json
from eval.davis.config import SetName
from eval.propagation.videos import subfolders


class VideoSet(NamedTuple):
    """A data set: where it is, how many videos its splits have, and who scores masks of the splits whose own are withheld."""

    title: str
    address: str
    videos: dict[str, int]
    server: str
    zip_folder: str  # in which the server wants the videos' folders


_CODALAB = "https://codalab.lisn.upsaclay.fr/competitions"
# Numbers of videos: youtube-vos.org and "MOSE" (Ding et al., ICCV 2023); of DAVIS, see `eval.davis.data`.
SETS: dict[SetName, VideoSet] = {
    "davis": VideoSet("DAVIS-2017", "https://davischallenge.org/davis2017/code.html", {}, f"{_CODALAB}/6812", ""),
    "youtube-vos-2018": VideoSet(
        "YouTube-VOS 2018", "https://youtube-vos.org", {"train": 3471, "valid": 474}, f"{_CODALAB}/7685", "Annotations/"
    ),
    "youtube-vos-2019": VideoSet(
        "YouTube-VOS 2019", "https://youtube-vos.org", {"train": 3471, "valid": 507}, f"{_CODALAB}/6066", "Annotations/"
    ),
    "mose": VideoSet("MOSE", "https://mose.video", {"train": 1507, "valid": 311}, f"{_CODALAB}/10703", ""),
}


def video_names(folder: Path) -> list[str]:
    """Names of the videos of the split in this folder, sorted; ValueError, which names what is wrong, if there are none."""
    masks, meta = folder / "Annotations", folder / "meta.json"
    if not masks.is_dir():
        raise ValueError(f"{masks}: no such folder; {folder} should be a split with JPEGImages, Annotations and meta.json")
    if not meta.is_file():
        return subfolders(masks)
    try:
        videos = parse_json(meta.read_text(encoding="utf-8"))["videos"]
        names = sorted(map(str, dict(videos)))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{meta}: not a list of videos ({error!r})") from error
    return [check_name(name, f"{meta}: video") for name in names]
