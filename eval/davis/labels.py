# shim: remove
"""The old name of `eval.davis.masks`."""

from eval.davis.masks import resize_mask as resize_mask
