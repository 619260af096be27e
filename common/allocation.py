"""How the C library hands memory to this process."""

import ctypes

# Names and numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES = 2**30


def reuse_freed_memory() -> bool:
    """Let this process keep up to 1 GiB of freed memory for its next tensors; whether the C library understands that.

    glibc returns every large block to the system and gets the next one page by page, filled with zeros: 7 % of a ViT's forward pass
    on a CPU. Elsewhere than with glibc nothing happens.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return all(set_option(option, _KEPT_BYTES) == 1 for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD))
