"""How the C library hands memory to this process."""

import ctypes

# Names and numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES = 2**30
LARGEST_KEPT_BLOCK = 2**25
"""The most that glibc allows. With half of it, the backward pass of a Mask R-CNN takes a tenth longer."""


def reuse_freed_memory(largest_kept_block: int = LARGEST_KEPT_BLOCK) -> bool:
    """Let this process keep freed blocks for its next tensors; whether the C library understands that.

    glibc returns large blocks to the system and gets the next ones page by page, filled with zeros: 5 to 10 % of a ViT's forward pass
    on a CPU. Elsewhere than with glibc nothing happens. The last call counts.

    Args:
        largest_kept_block: In bytes; blocks of this size or more go back to the system. Large ones leave holes that stay empty.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    options = {_M_TRIM_THRESHOLD: _KEPT_BYTES, _M_MMAP_THRESHOLD: largest_kept_block}
    return all(set_option(option, value) == 1 for option, value in options.items())
