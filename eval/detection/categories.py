# shim: remove
from eval.detection.data import CATEGORY_NAMES as CATEGORY_NAMES
