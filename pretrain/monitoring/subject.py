"""The network that is looked at, and what it shows: where its image-level feature comes from, which patches are alike.

Shapes: B images, H heads, N = h*w patches, S = all tokens, D channels, d = D/H, R = B*N rows, K components.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.layers import Attention
from torch import Tensor, nn

from backbones.build import AnyBackbone, build_backbone
from backbones.checkpoint import load_checkpoint
from backbones.convert import open_backbone
from backbones.file import load_strictly
from backbones.layouts.patchbench import PATCHBENCH
from backbones.spec import typical_image_size
from backbones.vit import ViT
from pretrain.config import PretrainConfig, ViewsConfig
from pretrain.methods import SelfPatchConfig
from pretrain.objectives.aggregation import Aggregation, ClassAttentionBlock
from pretrain.objectives.base import attention_heads, token_width

_QUANTILES = (0.01, 0.99)  # the range of each component that is spread over the colours; the few values outside are clipped


@dataclass(frozen=True)
class Subject:
    """A backbone, with the side in pixels of the global crops that it was trained on, and the parts of its method that plots show.

    These are SelfPatch's module that makes the CLS token from the patches, how it selects positives, and how patch matching draws
    crops.
    """

    backbone: AnyBackbone
    size: int
    aggregation: Aggregation | None = None
    selfpatch: SelfPatchConfig | None = None
    matching_views: ViewsConfig | None = None

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    @property
    def stride(self) -> int:
        """Pixels per side of one patch or position."""
        return self.backbone.map_strides([self.backbone.spec.num_blocks - 1])[0]


def subject_of(teacher: nn.Module, config: PretrainConfig) -> Subject:
    """The teacher of a run."""
    aggregation = teacher.get_submodule("heads.aggregation") if config.reads("selfpatch") else None
    assert aggregation is None or isinstance(aggregation, Aggregation)
    return Subject(
        backbone=cast(AnyBackbone, teacher.get_submodule("backbone")),
        size=config.views.global_size,
        aggregation=aggregation,
        selfpatch=config.selfpatch if config.reads("selfpatch") else None,
        matching_views=config.views if config.reads("matching") else None,
    )


def open_subject(path: Path, device: torch.device) -> Subject:
    """The teacher of a checkpoint of ours with what its method adds; of any other checkpoint or backbone file the backbone alone.

    The authors' SelfPatch checkpoints select positives as published: 4 of 3 x 3 patches.
    """
    conversion = open_backbone(path)
    backbone = build_backbone(conversion.spec)
    load_strictly(backbone, conversion.state_dict)
    backbone.to(device)
    if conversion.layout == PATCHBENCH.name:
        checkpoint = load_checkpoint(path)
        # Not so of a backbone file that was made of one.
        if PATCHBENCH.matches(checkpoint):
            return _trained_here(backbone, checkpoint["settings"], _below("heads.aggregation.", checkpoint["teacher"]))
    published = SelfPatchConfig() if conversion.layout == "selfpatch" else None
    return Subject(backbone, size=typical_image_size(conversion.spec), selfpatch=published)


def _trained_here(backbone: AnyBackbone, settings: Mapping[str, Any], weights: dict[str, Any]) -> Subject:
    """With the weights of the aggregation module, which only SelfPatch has."""
    aggregation = None
    if weights:
        aggregation = Aggregation(token_width(backbone), attention_heads(backbone.spec))
        load_strictly(aggregation, weights)
        aggregation.to(next(backbone.parameters()).device)
    return Subject(
        backbone=backbone,
        size=settings["views.global_size"],
        aggregation=aggregation,
        selfpatch=SelfPatchConfig(**_below("selfpatch.", settings)) if weights else None,
        matching_views=ViewsConfig(**_below("views.", settings)) if settings["method"] == "patch_matching" else None,
    )


def _below(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


@contextmanager
def undisturbed(*networks: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; afterwards every module's mode is what it was.

    Not inference mode: tensors made in it cannot take part in training, and what is cached inside would.
    """
    modes = {module: module.training for network in networks for module in network.modules()}
    for network in networks:
        network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def image_attention(subject: Subject, images_B3HW: Tensor) -> tuple[Tensor, str, list[str]]:
    """What of each image goes into its feature, for whatever makes the image-level feature of this network.

    SelfPatch's CLS token attends in the aggregation module; a ViT's own one in its last block. Without any (a Swin, a ViT whose
    checkpoint has no aggregation module) the feature is the mean of all positions, which attends to nothing: then the cosine of each
    position with it says how much the position is like the whole.

    Returns:
        Maps [B, H, h, w], float32: attention weights, whose rest is for other tokens, or cosines; what they are; a name for each map.
    """
    backbone = subject.backbone
    if subject.aggregation is not None:
        tokens = backbone.forward_tokens(images_B3HW)
        weights_BHN, grid = aggregation_attention(subject.aggregation, tokens.patches), tokens.grid
        what = "SelfPatch's CLS token, second block of the aggregation module"
    # Only timm's own attention has the weights that `cls_attention` computes.
    elif isinstance(backbone, ViT) and backbone.spec.class_token and type(backbone.blocks[-1].attn) is Attention:
        weights_BHN, grid = cls_attention(backbone, images_B3HW)
        what = "the CLS token, last block"
    else:
        tokens = backbone.forward_tokens(images_B3HW)
        cosines_BN = F.cosine_similarity(tokens.patches, tokens.patches.mean(1, keepdim=True), dim=-1)
        what = "no CLS token: cosine of each position with the mean of all, which is the image's feature"
        return cosines_BN[:, None].unflatten(2, tokens.grid).float(), what, ["cosine with the mean"]
    heads = [f"head {head}" for head in range(1, weights_BHN.shape[1] + 1)]
    maps_BHhw = weights_BHN.unflatten(2, grid).float()
    if len(heads) > 1:
        maps_BHhw = torch.cat([maps_BHhw.mean(1, keepdim=True), maps_BHhw], dim=1)
        heads = ["mean of heads", *heads]
    return maps_BHhw, f"attention of {what}", heads


def cls_attention(vit: ViT, images_B3HW: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Attention weights [B, H, N] of the CLS token to the patches in a ViT's last block, and the grid (h, w)."""
    attention = vit.blocks[-1].attn
    inputs: list[Tensor] = []
    handle = attention.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0]))
    try:
        grid = vit.forward_tokens(images_B3HW).grid
    finally:
        handle.remove()
    # [B, S, 3D] -> [3, B, H, S, d]
    query_BHSd, key_BHSd, _ = attention.qkv(inputs[0]).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    weights_BHS = _cls_weights(attention.q_norm(query_BHSd), attention.k_norm(key_BHSd))
    return weights_BHS[:, :, vit.num_prefix_tokens :], grid


def aggregation_attention(aggregation: Aggregation, patches_BND: Tensor) -> Tensor:
    """Attention weights [B, H, N] of SelfPatch's image-level CLS token to the patches, in the last class-attention block."""
    cls_B1D = aggregation.cls_token.expand(len(patches_BND), 1, -1)
    *earlier, last = aggregation.blocks
    for block in earlier:
        cls_B1D = block(cls_B1D, patches_BND, None)
    assert isinstance(last, ClassAttentionBlock)
    tokens_BSD = last.norm1(torch.cat([cls_B1D, patches_BND], dim=1))
    query_BHSd, key_BHSd = (
        layer(tokens_BSD).unflatten(-1, (last.num_heads, -1)).transpose(1, 2) for layer in (last.query, last.key)
    )
    return _cls_weights(query_BHSd, key_BHSd)[:, :, 1:]


def _cls_weights(query_BHSd: Tensor, key_BHSd: Tensor) -> Tensor:
    """How the first token attends to all, [B, H, S]."""
    query_BH1d = query_BHSd[:, :, :1] * query_BHSd.shape[-1] ** -0.5
    return (query_BH1d @ key_BHSd.transpose(-2, -1)).softmax(-1)[:, :, 0]


def principal_colours(patches_BND: Tensor) -> tuple[Tensor, float]:
    """The first three principal components of all patches of all images together as red, green and blue.

    All patches take part, not those of a foreground only: what counts as foreground would itself be a threshold on a component.
    Signs are fixed by the largest loading, so that plots of one network do not depend on the device. Returns colours float32
    [B, N, 3] in [0, 1], on the CPU, and which part of the variance the three components hold.
    """
    rows_RD = patches_BND.flatten(0, 1).double().cpu()
    rows_RD = rows_RD - rows_RD.mean(0)
    variances_D, directions_DD = torch.linalg.eigh(rows_RD.T @ rows_RD)
    count = min(3, len(variances_D))
    directions_DK = directions_DD[:, -count:].flip(1)
    largest_1K = directions_DK.abs().argmax(0, keepdim=True)
    directions_DK = directions_DK * directions_DK.gather(0, largest_1K).sign()
    scores_RK = rows_RD @ directions_DK
    low_1K, high_1K = (scores_RK.quantile(part, dim=0, keepdim=True) for part in _QUANTILES)
    colours_RK = ((scores_RK - low_1K) / (high_1K - low_1K).clamp(min=torch.finfo(torch.float32).eps)).clamp(0, 1)
    colours_R3 = F.pad(colours_RK, (0, 3 - count), value=0.5)
    total = float(variances_D.sum())
    explained = float(variances_D[-count:].sum()) / total if total > 0 else 1.0
    return colours_R3.float().unflatten(0, patches_BND.shape[:2]), explained
