"""Reading label maps so that a damaged or foreign one is an error that names it."""

from typing import Any

import numpy as np
from mmengine.registry import TRANSFORMS
from mmseg.datasets.ade import ADE20KDataset
from mmseg.datasets.transforms import LoadAnnotations

from eval.openmmlab.images import ImageFileError
from eval.segmentation.figures import IGNORED_LABEL

_NUM_CLASSES = len(ADE20KDataset.METAINFO["classes"])


@TRANSFORMS.register_module()
class ReadLabels(LoadAnnotations):
    """mmseg's `LoadAnnotations` for ADE20K, with checks; 0 (unlabelled) becomes 255, 1 to 150 become 0 to 149."""

    def __init__(self) -> None:
        """Fix the options."""
        super().__init__(reduce_zero_label=True)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add `gt_seg_map`.

        Args:
            results: With `seg_map_path`, and `ori_shape` of the photograph.

        Raises:
            ImageFileError: If the file is no label map, has another size than its photograph, or labels beyond 150.
        """
        path = results["seg_map_path"]
        try:
            results = super().transform(results)
        except (OSError, SyntaxError) as error:  # Pillow's, for a PNG that breaks off or is none
            raise ImageFileError(f"{path}: not a readable label map ({error}); copy it again") from error
        labels_HW = results["gt_seg_map"]
        if labels_HW.shape != tuple(results["ori_shape"]):
            raise ImageFileError(f"{path}: label map of shape {labels_HW.shape} for an image of {tuple(results['ori_shape'])}")
        foreign = labels_HW[(labels_HW >= _NUM_CLASSES) & (labels_HW != IGNORED_LABEL)]
        if foreign.size:
            found = ", ".join(str(label + 1) for label in np.unique(foreign).tolist()[:5])
            raise ImageFileError(f"{path}: labels {found}; ADE20K's are 0 (unlabelled) and 1 to {_NUM_CLASSES}")
        return results
