"""Where an image-level feature comes from: the attention of the token that becomes it.

Shapes: B images, H heads, N = h*w patches, S = all tokens, D channels, d = D/H.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import Attention
from torch import Tensor

from backbones.spec import ViTSpec
from backbones.vit import ViT
from pretrain.objectives.aggregation import Aggregation, ClassAttentionBlock
from pretrain.watching.subject import Subject


class AttentionMaps(NamedTuple):
    """What of an image goes into its feature."""

    maps_BHhw: Tensor
    """float32; attention weights, which sum to at most 1 over the patches (the rest is for other tokens), or cosines."""
    what: str
    """In words."""
    heads: list[str]
    """A name for each of the H maps."""


def image_attention(subject: Subject, images_B3HW: Tensor) -> AttentionMaps:
    """The maps of a batch, for whatever makes the image-level feature of this network.

    SelfPatch's CLS token attends in the aggregation module; a ViT's own one in its last block. Without any (a Swin, a ViT whose
    checkpoint has no aggregation module) the feature is the mean of all positions, which attends to nothing: then the cosine of each
    position with it says how much the position is like the whole.
    """
    backbone = subject.backbone
    spec = backbone.spec
    if subject.aggregation is not None:
        tokens = backbone.forward_tokens(images_B3HW)
        weights_BHN = aggregation_attention(subject.aggregation, tokens.patches)
        what, grid = "SelfPatch's CLS token, second block of the aggregation module", tokens.grid
    elif isinstance(backbone, ViT) and isinstance(spec, ViTSpec) and spec.class_token and has_plain_attention(backbone):
        weights_BHN, grid = cls_attention(backbone, images_B3HW)
        what = "the CLS token, last block"
    else:
        tokens = backbone.forward_tokens(images_B3HW)
        cosines_BN = F.cosine_similarity(tokens.patches, tokens.patches.mean(1, keepdim=True), dim=-1)
        return AttentionMaps(
            cosines_BN[:, None].unflatten(2, tokens.grid).float(),
            "no CLS token: cosine of each position with the mean of all, which is the image's feature",
            ["cosine with the mean"],
        )
    heads = [f"head {head}" for head in range(1, weights_BHN.shape[1] + 1)]
    maps_BHhw = weights_BHN.unflatten(2, grid).float()
    if len(heads) > 1:
        maps_BHhw = torch.cat([maps_BHhw.mean(1, keepdim=True), maps_BHhw], dim=1)
        heads = ["mean of heads", *heads]
    return AttentionMaps(maps_BHhw, f"attention of {what}", heads)


def has_plain_attention(vit: ViT) -> bool:
    """Whether the last block's attention is timm's own, whose weights `cls_attention` can compute."""
    return type(vit.blocks[-1].attn) is Attention


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
    query_BH1d, key_BHSd = attention.q_norm(query_BHSd[:, :, :1]), attention.k_norm(key_BHSd)
    weights_BHS = (query_BH1d * attention.scale @ key_BHSd.transpose(-2, -1)).softmax(-1)[:, :, 0]
    return weights_BHS[:, :, vit.num_prefix_tokens :], grid


def aggregation_attention(aggregation: Aggregation, patches_BND: Tensor) -> Tensor:
    """Attention weights [B, H, N] of SelfPatch's image-level CLS token to the patches, in the last class-attention block."""
    cls_B1D = aggregation.cls_token.expand(len(patches_BND), 1, -1)
    *earlier, last = aggregation.blocks
    for block in earlier:
        cls_B1D = block(cls_B1D, patches_BND, None)
    assert isinstance(last, ClassAttentionBlock)
    tokens_BSD = last.norm1(torch.cat([cls_B1D, patches_BND], dim=1))
    query_BH1d, key_BHSd = (
        layer(tokens).unflatten(-1, (last.num_heads, -1)).transpose(1, 2)
        for layer, tokens in ((last.query, tokens_BSD[:, :1]), (last.key, tokens_BSD))
    )
    weights_BHS = (query_BH1d * query_BH1d.shape[-1] ** -0.5 @ key_BHSd.transpose(-2, -1)).softmax(-1)[:, :, 0]
    return weights_BHS[:, :, 1:]
