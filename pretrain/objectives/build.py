"""From a configuration to its objective."""

from pretrain.config import PretrainConfig
from pretrain.objectives.base import Objective
from pretrain.objectives.dino import CLSDistillation, PatchDistillation
from pretrain.objectives.image_level import ImageLevelObjective
from pretrain.objectives.selfpatch import SelfPatchObjective


def build_objective(config: PretrainConfig) -> Objective:
    """The objective of a configuration."""
    image_loss = CLSDistillation(config.dino)
    if config.method == "dino":
        return ImageLevelObjective(image_loss)
    return SelfPatchObjective(image_loss, PatchDistillation(config.dino, config.selfpatch.out_dim), config.selfpatch)
