"""A ViT's patch tokens as the authors' network computes them: attention as a matrix, a softmax and a second product.

Written from the description of `vision_transformer.py` (facebookresearch/dino 7c446df) to be slow and obvious. Takes its weights, its
patch embedding and its positions from ours.
"""

import torch.nn.functional as F
from timm.layers import Attention
from torch import Tensor

from backbones.vit import ViT


def attend(attention: Attention, tokens_BND: Tensor) -> Tensor:
    batch, count, width = tokens_BND.shape
    heads = attention.num_heads
    qkv = attention.qkv(tokens_BND).reshape(batch, count, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    queries, keys, values = qkv[0], qkv[1], qkv[2]
    weights = (queries @ keys.transpose(-2, -1)) * (width // heads) ** -0.5
    weights = weights.softmax(dim=-1)
    return attention.proj((weights @ values).transpose(1, 2).reshape(batch, count, width))


def patch_tokens(vit: ViT, image: Tensor) -> Tensor:
    """Image [3, H, W] -> patch tokens [N, D] of the last block, after the final norm if the network has one."""
    tokens, _ = vit._embed(image[None])
    for block in vit.blocks:
        tokens = tokens + attend(block.attn, block.norm1(tokens))
        tokens = tokens + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(tokens))))
    return vit.norm(tokens)[0, vit.num_prefix_tokens :]
