# shim: remove
from eval.classification.data import read_splits

__all__ = ["read_splits"]
