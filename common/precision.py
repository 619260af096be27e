# shim: remove
from common.distributed import full_float32

__all__ = ["full_float32"]
