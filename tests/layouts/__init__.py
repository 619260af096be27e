"""Small networks in every layout that `backbones.layouts` reads, written down independently of its key tables."""

from tests.layouts import foundation, methods
from tests.layouts.base import DINOV2, REGISTERS, RESNET, VIT, Made, prefixed, weights_of
from tests.layouts.foundation import DINOV3, GATED, without_periods
from tests.layouts.methods import MOCO_V3_HEADS

__all__ = ["DINOV2", "DINOV3", "GATED", "MOCO_V3_HEADS", "REGISTERS", "RESNET", "VIT", "Made"]
__all__ += ["make_all", "prefixed", "weights_of", "without_periods"]


def make_all() -> dict[str, Made]:
    """Every layout by a name of its own; some layouts have several variants."""
    made = methods.make_student_teacher() | foundation.make_dinov2() | foundation.make_dinov3()
    return made | methods.make_contrastive() | foundation.make_huggingface() | methods.make_libraries()
