# shim: remove
"""The old names of `eval.davis.data`."""

from eval.davis.data import PUBLISHED_SIZES as PUBLISHED_SIZES
