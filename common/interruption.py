# shim: remove
from common.cli import STOP_SIGNALS, Interrupted, StopRequest, leave_stopping_to_parent

__all__ = ["STOP_SIGNALS", "Interrupted", "StopRequest", "leave_stopping_to_parent"]
