# shim: remove
LARGEST_KEPT_BLOCK = 2**25


def reuse_freed_memory(largest_kept_block: int = LARGEST_KEPT_BLOCK) -> bool:
    """Do nothing any more."""
    del largest_kept_block
    return False
