# shim: remove
from common.distributed import peak_memory_bytes

__all__ = ["peak_memory_bytes"]
