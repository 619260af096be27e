# shim: remove
from common.images import IMAGE_SUFFIXES
from eval.classification.data import _SORT_BY_CLASS as SORT_BY_CLASS
from eval.classification.data import IMAGENET, PUBLISHED_SIZES
from eval.classification.data import read_splits as read_image_folder

__all__ = ["IMAGENET", "IMAGE_SUFFIXES", "PUBLISHED_SIZES", "SORT_BY_CLASS", "read_image_folder"]
