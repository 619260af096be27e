"""The network that is looked at, and what its method adds to the backbone."""

from dataclasses import dataclass
from typing import Self, cast

import torch
from torch import nn

from backbones.build import AnyBackbone
from pretrain.config import PretrainConfig, SelfPatchConfig, ViewsConfig
from pretrain.objectives.aggregation import Aggregation


@dataclass(frozen=True)
class Subject:
    """A backbone, with the parts of its pretraining that pictures show."""

    backbone: AnyBackbone
    """In evaluation mode while it is looked at."""
    size: int
    """Side of the global crops that it was trained on, in pixels."""
    aggregation: Aggregation | None = None
    """What makes SelfPatch's CLS token from the patches."""
    selfpatch: SelfPatchConfig | None = None
    """How positives are selected, with SelfPatch."""
    matching_views: ViewsConfig | None = None
    """How crops are drawn, with patch matching."""

    @property
    def device(self) -> torch.device:
        """Where the backbone is."""
        return next(self.backbone.parameters()).device

    def to(self, device: torch.device) -> Self:
        """Move the networks; returns this."""
        self.backbone.to(device)
        if self.aggregation is not None:
            self.aggregation.to(device)
        return self

    @property
    def stride(self) -> int:
        """Pixels per side of one patch or position."""
        return self.backbone.map_strides([self.backbone.spec.num_blocks - 1])[0]


def subject_of(teacher: nn.Module, config: PretrainConfig) -> Subject:
    """The teacher of a run."""
    backbone = cast(AnyBackbone, teacher.get_submodule("backbone"))
    aggregation = teacher.get_submodule("heads.aggregation") if config.reads("selfpatch") else None
    assert aggregation is None or isinstance(aggregation, Aggregation)
    return Subject(
        backbone=backbone,
        size=config.views.global_size,
        aggregation=aggregation,
        selfpatch=config.selfpatch if config.reads("selfpatch") else None,
        matching_views=config.views if config.method == "patch_matching" else None,
    )
