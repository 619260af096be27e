# shim: remove
from common.plots import Panel, smoothed, write_panels

__all__ = ["Panel", "smoothed", "write_panels"]
