"""A finished checkpoint as a network to look at."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backbones.build import AnyBackbone, build_backbone
from backbones.checkpoint import load_checkpoint
from backbones.file import load_strictly
from backbones.formats import patchbench, selfpatch
from backbones.opening import open_backbone
from backbones.spec import typical_image_size
from pretrain.config import SelfPatchConfig, ViewsConfig
from pretrain.objectives.aggregation import Aggregation
from pretrain.objectives.base import attention_heads, token_width
from pretrain.watching.subject import Subject

_AGGREGATION = "heads.aggregation."


def open_subject(path: Path) -> Subject:
    """The teacher of a checkpoint of ours with what its method adds; of any other checkpoint or backbone file the backbone alone.

    The authors' SelfPatch checkpoints select positives as published: 4 of 3 x 3 patches.

    Raises:
        ValueError: If the file holds no backbone.
    """
    conversion = open_backbone(path)
    backbone = build_backbone(conversion.spec)
    load_strictly(backbone, conversion.state_dict)
    if conversion.format == patchbench.NAME:
        checkpoint = load_checkpoint(path)
        if patchbench.matches(checkpoint):
            return _trained_here(backbone, checkpoint)
    published = SelfPatchConfig() if conversion.format == selfpatch.NAME else None
    return Subject(backbone=backbone, size=typical_image_size(conversion.spec), selfpatch=published)


def _trained_here(backbone: AnyBackbone, checkpoint: Mapping[str, Any]) -> Subject:
    settings, teacher = checkpoint["settings"], checkpoint["teacher"]
    method = settings["method"]
    weights = {name.removeprefix(_AGGREGATION): value for name, value in teacher.items() if name.startswith(_AGGREGATION)}
    aggregation = None
    if weights:
        aggregation = Aggregation(token_width(backbone), attention_heads(backbone.spec))
        load_strictly(aggregation, weights)
    return Subject(
        backbone=backbone,
        size=settings["views.global_size"],
        aggregation=aggregation,
        selfpatch=SelfPatchConfig(**_section(settings, "selfpatch")) if weights else None,
        matching_views=ViewsConfig(**_section(settings, "views")) if method == "patch_matching" else None,
    )


def _section(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The fields of a section of a run's settings."""
    return {key.removeprefix(f"{name}."): value for key, value in settings.items() if key.startswith(f"{name}.")}
