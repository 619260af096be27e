"""What detection and segmentation share: operators, backbone and pyramid registration, launching.

Importing this package prepares OpenMMLab's packages (`compatibility`, `operators`): mmcv looks its operators up when `mmcv.ops` is
imported, so they must be in place before anything of mmdet or mmseg is.
"""

from eval.openmmlab.compatibility import refuse_unsafe_checkpoints
from eval.openmmlab.operators import install_operators

install_operators()
refuse_unsafe_checkpoints()
