"""What a result says about its DAVIS data."""

from collections.abc import Sequence

from eval.davis.dataset import DavisSplit, VideoSequence
from eval.provenance import describe_dataset
from eval.result import Dataset

# (year, split) -> sequences, frames. Source: the image sets of the DAVIS 2016 and 2017 downloads (davischallenge.org).
PUBLISHED_SIZES = {
    ("2016", "train"): (30, 2079),
    ("2016", "val"): (20, 1376),
    ("2017", "train"): (60, 4209),
    ("2017", "val"): (30, 1999),
    ("2017", "test-dev"): (30, 2086),
    ("2017", "test-challenge"): (30, 2180),
}


def fingerprint(split: DavisSplit, sequences: Sequence[VideoSequence]) -> Dataset:
    """What the result says about the data."""
    frames = sum(len(sequence.frames) for sequence in sequences)
    published_sequences, published_frames = PUBLISHED_SIZES.get((split.year, split.split), (0, 0))
    items = [f"{item.name} {len(item.frames)} frames {item.size[1]}x{item.size[0]}" for item in sequences]
    return describe_dataset(
        split.root,
        f"DAVIS-{split.year}",
        split.split,
        items,
        full_size=published_sequences,
        restricted=frames != published_frames or split.resolution != "480p",
    )
