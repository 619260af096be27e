"""From a configuration to its objective."""

from pretrain.config import PretrainConfig
from pretrain.objectives.base import ImageLoss, Objective, PatchLoss
from pretrain.objectives.dino import CLSDistillation, PatchDistillation
from pretrain.objectives.image_level import ImageLevelObjective
from pretrain.objectives.moby import ImageContrast, PatchContrast
from pretrain.objectives.patch_matching import MatchingObjective
from pretrain.objectives.selfpatch import SelfPatchObjective


def build_objective(config: PretrainConfig) -> Objective:
    """The objective of a configuration."""
    if config.method == "patch_matching":
        patches = (config.views.global_size // config.backbone.stride) ** 2
        return MatchingObjective(config.dino, config.matching, patches)
    image_loss: ImageLoss = ImageContrast(config.moby) if "moby" in config.traits.sections else CLSDistillation(config.dino)
    if not config.reads("selfpatch"):
        return ImageLevelObjective(image_loss)
    patch_loss: PatchLoss = PatchDistillation(config.dino, config.selfpatch.out_dim)
    if config.patch_contrast:
        patch_loss = PatchContrast(config.moby, config.selfpatch.negatives)
    return SelfPatchObjective(image_loss, patch_loss, config.selfpatch)
