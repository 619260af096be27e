# shim: remove
"""The old names of `eval.davis.data`."""

from eval.davis.data import ALL_SEQUENCES as ALL_SEQUENCES
from eval.davis.data import DavisSplit as DavisSplit
from eval.davis.data import VideoSequence as VideoSequence
from eval.davis.data import find_sequences as find_sequences
from eval.davis.data import image_set_path as image_set_path
from eval.davis.data import read_image_set as read_image_set

DavisDataError = ValueError
