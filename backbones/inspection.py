"""Whether a backbone's weights and features look trained: statistics on one image, and warnings.

The warnings rest on measurements made here (ViT-Ti/16, ViT-S/16 with and without CLS token, Swin-T and ResNet-50 with fresh weights;
ViTs after 12 and 36 SelfPatch updates; natural images):

- Every normalisation layer of a fresh network has exactly weight 1 (or 0, where a residual branch starts closed) and bias 0; after
  a few updates not one has. This is the surest sign, and it shows a part that was never loaded, too.
- In fresh ViTs the last block's attention is uniform: its entropy is 0.996 to 1.000 of the highest possible. It still is after so few
  updates; a network that attends uniformly is hardly trained, whatever its weights.
- Mean, deviation, norm, rank and similarity do not tell fresh networks from briefly trained ones: between two images the
  similarity of a fresh ViT's patches went from 0.06 to 0.39, and a Swin's from 0.18 to 0.51. They are printed without a warning,
  except for features that do not depend on the position at all.

No fully trained published weights were at hand; the limits are ours.

Shapes: N patches, D channels, T tokens of the last block, h heads.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError
from timm.layers import Attention
from torch import Tensor, nn

from backbones.build import AnyBackbone
from backbones.spec import typical_image_size
from backbones.vit import ViT
from common.images import IMAGENET_MEAN, IMAGENET_STD

UNIFORM_ATTENTION = 0.99
"""Entropy of the attention over the highest possible, from which on it counts as uniform."""
CONSTANT_FEATURES = 0.999
"""Mean cosine similarity of the patches, from which on they count as all the same."""


def inspect_backbone(network: AnyBackbone, image: Path) -> dict[str, Any]:
    """Run an image through a backbone on the CPU. ValueError if the file is not a readable image.

    Args:
        network: With its weights loaded; put into evaluation mode.
        image: Any image file; its centre square is scaled to the size of pretraining.

    Returns:
        JSON-ready values: `image_size` of that square; `mean`, `deviation` and `norm` (length) of the patches' features;
        `effective_rank`, the exponential of the entropy of the normalised singular values of the centred features (Roy and Vetterli,
        2007), and the `highest_rank` possible; `cosine_similarity`, the mean over all pairs of different patches, None where there is
        one patch or a feature vector is zero; `attention_entropy` of the last block over the highest possible, None for networks
        without plain global attention; `norm_layers` and how many of them are `norm_layers_as_initialised`, that is with weights all
        1 or all 0 and biases all 0, exactly; and `warnings` of an untrained network.
    """
    size = typical_image_size(network.spec)
    images_13SS = _read_image(image, size)
    features_ND, attention_entropy = _features_and_entropy(network.eval(), images_13SS)
    singular = torch.linalg.svdvals(features_ND - features_ND.mean(0))
    directions_ND = F.normalize(features_ND, dim=1)
    count = len(features_ND)
    similarity = (directions_ND @ directions_ND.T).sum() - (directions_ND**2).sum()
    has_directions = count > 1 and bool((features_ND.norm(dim=1) > 0).all())
    norms = [module for module in network.modules() if isinstance(module, (nn.LayerNorm, nn.BatchNorm2d))]
    values = {
        "image_size": size,
        "mean": features_ND.mean().item(),
        "deviation": features_ND.std().item(),
        "norm": features_ND.norm(dim=1).mean().item(),
        "effective_rank": math.exp(_entropy(singular / singular.sum().clamp_min(1e-300)).item()),
        "highest_rank": min(count - 1, features_ND.shape[1]),
        "cosine_similarity": similarity.item() / (count * (count - 1)) if has_directions else None,
        "attention_entropy": attention_entropy,
        "norm_layers": len(norms),
        "norm_layers_as_initialised": sum(_is_as_initialised(norm) for norm in norms),
    }
    values = {name: None if value != value else value for name, value in values.items()}  # NaN of a single patch's deviation
    return {**values, "warnings": _warnings(values)}


def _warnings(values: dict[str, Any]) -> list[str]:
    found = []
    if untouched := values["norm_layers_as_initialised"]:
        found.append(
            f"{untouched} of {values['norm_layers']} normalisation layers hold exactly their initial values, as in an untrained "
            "network: was this part of the weights ever trained and loaded?"
        )
    entropy, similarity = values["attention_entropy"], values["cosine_similarity"]
    if entropy is not None and entropy >= UNIFORM_ATTENTION:
        found.append(
            f"the last block attends uniformly (entropy {entropy:.3f} of the highest possible), as in an untrained network: hardly "
            "trained, or weights in the wrong place"
        )
    if similarity is None or similarity >= CONSTANT_FEATURES:
        found.append("the features are the same at every position: collapsed, or weights in the wrong place")
    return found


def _read_image(path: Path, size: int) -> Tensor:
    """The centre square as a normalised [1, 3, size, size]."""
    try:
        with Image.open(path) as image:
            pixels = image.convert("RGB")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: no readable image ({error})") from error
    side = min(pixels.size)
    left, top = (pixels.width - side) // 2, (pixels.height - side) // 2
    square = pixels.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
    image_SS3 = torch.from_numpy(np.array(square)).float() / 255
    normalised_SS3 = (image_SS3 - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    return normalised_SS3.permute(2, 0, 1)[None]


@torch.no_grad()
def _features_and_entropy(network: AnyBackbone, images_13SS: Tensor) -> tuple[Tensor, float | None]:
    """Patch features [N, D] in float64, and the relative entropy of the last block's attention where it is plain."""
    attention = network.blocks[-1].attn if isinstance(network, ViT) else None
    if not isinstance(attention, Attention):
        return network.forward_tokens(images_13SS).patches[0].double(), None
    inputs: list[Tensor] = []
    handle = attention.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0]))
    try:
        features_ND = network.forward_tokens(images_13SS).patches[0].double()
    finally:
        handle.remove()
    (tokens_1TD,) = inputs
    qkv_3hTd = attention.qkv(tokens_1TD)[0].unflatten(1, (3, attention.num_heads, -1)).permute(1, 2, 0, 3)
    queries_hTd, keys_hTd = attention.q_norm(qkv_3hTd[0]), attention.k_norm(qkv_3hTd[1])
    weights_hTT = (queries_hTd @ keys_hTd.transpose(1, 2) * attention.scale).softmax(-1)
    return features_ND, _entropy(weights_hTT).mean().item() / math.log(weights_hTT.shape[-1])


def _entropy(probabilities: Tensor) -> Tensor:
    """Shannon entropy in nats over the last axis."""
    return torch.special.entr(probabilities).sum(-1)


def _is_as_initialised(norm: nn.LayerNorm | nn.BatchNorm2d) -> bool:
    weights_alike = bool((norm.weight == 1).all() or (norm.weight == 0).all())
    return weights_alike and bool((norm.bias == 0).all())
