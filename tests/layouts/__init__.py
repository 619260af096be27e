"""Small networks in every layout that `backbones.layouts` reads, written down independently of its key tables."""

from tests.layouts import contrastive, dinov2, dinov3, huggingface, libraries, student_teacher
from tests.layouts.base import DINOV2, REGISTERS, RESNET, VIT, Made, prefixed, weights_of
from tests.layouts.contrastive import MOCO_V3_HEADS

__all__ = ["DINOV2", "MOCO_V3_HEADS", "REGISTERS", "RESNET", "VIT", "Made", "make_all", "prefixed", "weights_of"]


def make_all() -> dict[str, Made]:
    """Every layout by a name of its own; some layouts have several variants."""
    made: dict[str, Made] = {}
    for group in (student_teacher, dinov2, dinov3, contrastive, huggingface, libraries):
        made |= group.make()
    return made
