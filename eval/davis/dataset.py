# shim: remove
"""The old names of `eval.davis.data`."""

from pathlib import Path

from eval.davis import data
from eval.davis.data import ALL_SEQUENCES as ALL_SEQUENCES
from eval.davis.data import VideoSequence as VideoSequence
from eval.davis.data import find_sequences as find_sequences
from eval.davis.data import image_set_path as image_set_path
from eval.davis.data import read_image_set as read_image_set

DavisDataError = ValueError


class DavisSplit(data.DavisSplit):
    @classmethod
    def from_options(cls, root: Path, split: str, year: str, resolution: str, sequences: str) -> data.DavisSplit:
        return data.DavisSplit.chosen(root, data.DavisSplit(root=root, split=split, resolution=resolution), sequences)
