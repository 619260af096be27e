"""The network that is looked at, and what it shows: where its image-level feature comes from, which patches are alike.

Shapes: B images, H heads, N = h*w patches, S = all tokens, D channels, d = D/H, R = B*N rows.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from timm.layers import Attention
from torch import Tensor, nn

from backbones.build import AnyBackbone, build_backbone
from backbones.checkpoint import load_checkpoint
from backbones.convert import open_backbone
from backbones.file import load_strictly
from backbones.layouts.patchbench import PATCHBENCH, is_own_checkpoint
from backbones.spec import typical_image_size
from backbones.vit import ViT
from common.cli import as_arguments, parse
from pretrain.config import PretrainConfig, ViewsConfig
from pretrain.methods import SelfPatchConfig
from pretrain.networks import build_networks
from pretrain.objectives.aggregation import Aggregation, ClassAttentionBlock
from pretrain.objectives.base import Network

_QUANTILES = (0.01, 0.99)  # the range of each component that is spread over the colours; the few values outside are clipped


@dataclass(frozen=True)
class Subject:
    """A backbone, and what plots show of its method."""

    backbone: AnyBackbone
    aggregation: Aggregation | None = None  # makes SelfPatch's CLS token from the patches
    selfpatch: SelfPatchConfig | None = None  # says how positives are selected
    matching_views: ViewsConfig | None = None  # says how patch matching draws crops

    @property
    def size(self) -> int:
        """Side in pixels of the global crops that the backbone was trained on."""
        return typical_image_size(self.backbone.spec)

    @property
    def stride(self) -> int:
        """Pixels per side of a patch or position."""
        return self.backbone.map_strides([self.backbone.spec.num_blocks - 1])[0]


def subject_of(teacher: nn.Module, config: PretrainConfig) -> Subject:
    assert isinstance(teacher, Network)
    if not config.reads("selfpatch"):
        return Subject(teacher.backbone, matching_views=config.views if config.reads("matching") else None)
    aggregation = teacher.heads["aggregation"]
    assert isinstance(aggregation, Aggregation)
    return Subject(teacher.backbone, aggregation, config.selfpatch)


def open_subject(path: Path, device: torch.device) -> Subject:
    """The teacher of a checkpoint of ours with what its method adds; of any other checkpoint or backbone file the backbone alone."""
    conversion = open_backbone(path)
    # A backbone file that was made of a checkpoint of ours names the same layout.
    if conversion.layout == PATCHBENCH.name and is_own_checkpoint(checkpoint := load_checkpoint(path)):
        # How the data were read shapes no network.
        settings = {name: value for name, value in checkpoint["settings"].items() if not name.startswith("data.")}
        config = parse(PretrainConfig, as_arguments(settings), "python -m pretrain.monitoring")
        teacher = build_networks(config, device).teacher
        teacher.load_state_dict(checkpoint["teacher"])
        return subject_of(teacher, config)
    backbone = build_backbone(conversion.spec)
    load_strictly(backbone, conversion.state_dict)
    # The authors' checkpoints select positives as published: 4 of 3 x 3 patches.
    return Subject(backbone.to(device), selfpatch=SelfPatchConfig() if conversion.layout == "selfpatch" else None)


@contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; afterwards every module's mode is what it was."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():  # not inference mode: what is cached in it could not take part in training
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def image_attention(subject: Subject, images_B3HW: Tensor) -> tuple[Tensor, str, list[str]]:
    """What of each image goes into its feature: float32 maps [B, H, h, w], what they are, and a name for each map.

    SelfPatch's CLS token attends in the aggregation module; a ViT's own one in its last block. Without any (a Swin, a ViT whose
    checkpoint has no aggregation module) the feature is the mean of all positions; then the map is each position's cosine with it.
    """
    backbone, aggregation = subject.backbone, subject.aggregation
    block: nn.Module
    if aggregation is not None:
        block, what = aggregation.blocks[-1], "SelfPatch's CLS token, second block of the aggregation module"
    # Only timm's own attention has the weights that `_cls_weights` computes.
    elif isinstance(backbone, ViT) and backbone.spec.class_token and type(backbone.blocks[-1].attn) is Attention:
        block, what = backbone.blocks[-1], "the CLS token, last block"
    else:
        tokens = backbone.forward_tokens(images_B3HW)
        cosines_BN = F.cosine_similarity(tokens.patches, tokens.patches.mean(1, keepdim=True), dim=-1)
        what = "no CLS token: cosine of each position with the mean of all, which is the image's feature"
        return cosines_BN.unflatten(1, (1, *tokens.grid)).float(), what, ["cosine with the mean"]
    normed: list[Tensor] = []  # what the block's attention gets
    with block.get_submodule("norm1").register_forward_hook(lambda module, inputs, output: normed.append(output)):
        tokens = backbone.forward_tokens(images_B3HW)
        if aggregation is not None:
            aggregation.image_cls(tokens.patches)
    weights_BHN = _cls_weights(block, normed[0])[:, :, -tokens.patches.shape[1] :]  # patches come last
    maps_BHhw = weights_BHN.unflatten(2, tokens.grid).float()
    heads = [f"head {head}" for head in range(1, maps_BHhw.shape[1] + 1)]
    if len(heads) > 1:
        maps_BHhw = torch.cat([maps_BHhw.mean(1, keepdim=True), maps_BHhw], dim=1)
        heads = ["mean of heads", *heads]
    return maps_BHhw, f"attention of {what}", heads


def _cls_weights(block: nn.Module, tokens_BSD: Tensor) -> Tensor:
    """How the first token attends to all, [B, H, S], in a block of a ViT or of the aggregation module."""
    if isinstance(block, ClassAttentionBlock):
        layers = (block.query, block.key)
        query_BHSd, key_BHSd = (layer(tokens_BSD).unflatten(2, (block.num_heads, -1)).transpose(1, 2) for layer in layers)
    else:
        attention: Attention = block.get_submodule("attn")
        # [B, S, 3D] -> three times [B, H, S, d]
        query_BHSd, key_BHSd, _ = attention.qkv(tokens_BSD).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        query_BHSd, key_BHSd = attention.q_norm(query_BHSd), attention.k_norm(key_BHSd)
    query_BH1d = query_BHSd[:, :, :1] * query_BHSd.shape[-1] ** -0.5
    return (query_BH1d @ key_BHSd.transpose(-2, -1)).softmax(-1)[:, :, 0]


def principal_colours(patches_BND: Tensor) -> tuple[Tensor, float]:
    """The first three principal components of all patches of all images together as red, green and blue.

    All patches take part, since what counts as foreground would itself be a threshold on a component. Signs are fixed by the largest
    loading, so that plots of a network do not depend on the device. Returns colours float32 [B, N, 3] in [0, 1], on the CPU, and
    which part of the variance the three components hold.
    """
    rows_RD = patches_BND.flatten(0, 1).double().cpu()
    left, deviations, directions = torch.linalg.svd(rows_RD - rows_RD.mean(0), full_matrices=False)
    signs_31 = directions[:3].gather(1, directions[:3].abs().argmax(1, keepdim=True)).sign()
    scores_R3 = left[:, :3] * deviations[:3] * signs_31.T
    low_13, high_13 = (scores_R3.quantile(part, dim=0, keepdim=True) for part in _QUANTILES)
    colours_R3 = ((scores_R3 - low_13) / (high_13 - low_13).clamp(min=torch.finfo(torch.float32).eps)).clamp(0, 1)
    variances = deviations**2
    explained = float(variances[:3].sum() / variances.sum()) if variances.any() else 1.0
    return colours_R3.float().unflatten(0, patches_BND.shape[:2]), explained
