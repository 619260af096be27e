# shim: remove
from common.images import breaks_off, ends_whole, is_jpeg, read_header

__all__ = ["breaks_off", "ends_whole", "is_jpeg", "read_header"]
