"""The backbone to pretrain, as a recipe states it."""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(kw_only=True)
class BackboneConfig:
    """The network to pretrain. Whether a ViT has a CLS token and a final norm follows from the method."""

    family: Literal["vit", "swin"] = "vit"
    """Vision transformer or Swin transformer."""
    embed_dim: int = 384
    """Width: 192 for ViT-Ti, 384 for ViT-S, 768 for ViT-B; of a Swin's first stage, 96 for Swin-T."""
    depth: int = 12
    """Number of blocks of a ViT."""
    num_heads: int = 6
    """Attention heads of a ViT: 3 for ViT-Ti, 6 for ViT-S, 12 for ViT-B."""
    patch_size: int = 16
    """Side of a patch in pixels; 4 for a Swin."""
    stage_depths: tuple[int, ...] = (2, 2, 6, 2)
    """Blocks per stage of a Swin."""
    stage_heads: tuple[int, ...] = (3, 6, 12, 24)
    """Attention heads per stage of a Swin."""
    window_size: int = 7
    """Side of a Swin's attention windows in tokens."""
    drop_path_rate: float = 0.1
    """Stochastic depth of the student's last block, growing linearly from 0; the teacher has none."""

    def __post_init__(self) -> None:
        """Reject a rate that drops everything, and options of the other family."""
        if not 0 <= self.drop_path_rate < 1:
            raise ValueError(f"backbone.drop_path_rate={self.drop_path_rate} must be in [0, 1)")
        others = ("depth", "num_heads") if self.family == "swin" else ("stage_depths", "stage_heads", "window_size")
        for name in others:
            if getattr(self, name) != getattr(type(self), name):
                raise ValueError(f"backbone.{name}={getattr(self, name)} has no effect with backbone.family: {self.family}")

    @property
    def stride(self) -> int:
        """Pixels per side of one position of the final map."""
        return self.patch_size * 2 ** (len(self.stage_depths) - 1) if self.family == "swin" else self.patch_size

    def architecture(self) -> dict[str, Any]:
        """What `Objective.backbone_spec` needs."""
        common = {"family": self.family, "embed_dim": self.embed_dim, "patch_size": self.patch_size}
        if self.family == "swin":
            return common | {"depths": self.stage_depths, "num_heads": self.stage_heads, "window_size": self.window_size}
        return common | {"depth": self.depth, "num_heads": self.num_heads}
