"""Labels of any kind through videos, and the videos shared by the processes of a run."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch import Tensor

from common.distributed import rank, wait_for_all, world_size
from eval.progress import Progress
from eval.propagation.features import FeatureExtractor, input_size, read_frame
from eval.propagation.propagator import propagate_sequence
from eval.propagation.protocol import Rules
from eval.propagation.writing import READ_AHEAD, AnyVideo, in_threads, share

logger = logging.getLogger(__name__)


def carried_labels(
    frames: Sequence[Path],
    file_size: tuple[int, int],
    start: Callable[[tuple[int, int]], Tensor],
    extract: FeatureExtractor,
    rules: Rules,
) -> Iterator[Tensor]:
    """Soft labels [h, w, C] float32 of all frames but the first, on the device; `start` gives the first frame's on a grid (h, w).

    The files are of one (height, width), and are decoded ahead in threads.
    """
    size = input_size(*file_size, rules, extract.input_multiple)

    def read(path: Path) -> Tensor:
        image_3HW = read_frame(path, size, rules, file_size)
        # Only from pinned memory does a copy to a GPU run beside its work.
        return image_3HW.pin_memory() if extract.device.type == "cuda" else image_3HW

    with ThreadPoolExecutor(1 if extract.device.type == "cpu" else 4) as readers:
        yield from propagate_sequence(in_threads(readers, read, frames, READ_AHEAD), start, extract, rules)


def over_videos(videos: Sequence[AnyVideo], is_done: Callable[[AnyVideo], bool], work: Callable[[AnyVideo], None]) -> None:
    """Do the work for this process's share of the videos, without those for which it is done; return when all are done."""
    own = share(videos, rank(), world_size())
    remaining = [video for video in own if not is_done(video)]
    if finished := len(own) - len(remaining):
        logger.info("%d of %d videos were finished by an earlier run", finished, len(own))
    with Progress(total=sum(len(video.frames) for video in remaining), unit="frame", desc="propagation", disable=None) as bar:
        for video in remaining:
            work(video)
            bar.update(len(video.frames))
    wait_for_all()
