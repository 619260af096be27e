"""Which of a backbone's outputs stand for a whole image.

Shapes: B images, N patches or positions, D channels, L = features of the probe.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from backbones.base import Tokens
from backbones.build import AnyBackbone
from backbones.spec import BackboneSpec, PlainViTSpec
from common.precision import full_float32

KNN, LINEAR = "knn", "linear"

# The published figures take the last four blocks of ViT-S (384 wide) and, with mean patches, the last one of ViT-B (768).
# DINO's tiny and small models lie below this width, base and larger ones not.
_BASE_WIDTH = 768
_SMALL_BLOCKS = 4


@dataclass(frozen=True, kw_only=True)
class Representation:
    """The two feature vectors of an image: k-NN's, and the linear probe's, which begins or ends with k-NN's.

    k-NN's is the CLS token after the final norm (where the backbone has one); without a CLS token, the mean of the patches.
    """

    class_token: bool
    """Whether the backbone has a CLS token; the mean of the patches stands for it otherwise."""
    blocks: int
    """The probe sees this token of so many last blocks, each after the final norm, the last block's last."""
    mean_patch: bool
    """Whether the probe also sees the mean of the last block's patches beside the CLS token."""

    def describe(self) -> dict[str, str]:
        """In words, for the result."""
        token = "CLS token" if self.class_token else "mean of the patches or positions (the backbone has no CLS token)"
        of_blocks = f"{token}, last {self.blocks} blocks concatenated" if self.blocks > 1 else f"{token}, last block"
        return {
            "knn_features": f"{token}, last block",
            "linear_features": of_blocks + (", and mean patch of the last block" if self.mean_patch else ""),
        }


def published_representation(spec: BackboneSpec) -> Representation:
    """What DINO's evaluation takes of such a backbone.

    ViT-S and narrower: CLS tokens of the last four blocks; ViT-B and wider: CLS token and mean patch of the last one.
    Without CLS token (SelfPatch's ViT, Swin, ResNet): the pooled last map, as DINO does for networks that are no ViT.
    """
    if not (isinstance(spec, PlainViTSpec) and spec.class_token):
        return Representation(class_token=False, blocks=1, mean_patch=False)
    if spec.embed_dim < _BASE_WIDTH:
        return Representation(class_token=True, blocks=_SMALL_BLOCKS, mean_patch=False)
    return Representation(class_token=True, blocks=1, mean_patch=True)


def choose_representation(spec: BackboneSpec, blocks: int | None, mean_patch: bool | None) -> Representation:
    """The published representation with what the user wants otherwise.

    A ViT with fewer than four blocks gives all that it has.

    Raises:
        ValueError: If the backbone does not have so many blocks, or no CLS token beside which a mean could stand.
    """
    published = published_representation(spec)
    chosen = Representation(
        class_token=published.class_token,
        blocks=min(published.blocks, spec.num_blocks) if blocks is None else blocks,
        mean_patch=published.mean_patch if mean_patch is None else mean_patch,
    )
    if chosen.blocks > spec.num_blocks:
        raise ValueError(f"linear_blocks={blocks}: this backbone has {spec.num_blocks} blocks")
    if chosen.blocks > 1 and not isinstance(spec, PlainViTSpec):
        raise ValueError(f"linear_blocks={blocks}: only a ViT's blocks have features of one width; a {spec.family} takes 1")
    if chosen.mean_patch and not chosen.class_token:
        raise ValueError("linear_mean_patch: the backbone has no CLS token, so the mean patch is what the probe sees already")
    return chosen


class FeatureExtractor:
    """A backbone that answers with feature vectors."""

    def __init__(self, backbone: AnyBackbone, representation: Representation, device: torch.device) -> None:
        """Keep a backbone ready.

        Args:
            backbone: The network; moved to the device and set to evaluation mode.
            representation: Fits the backbone.
            device: Where to compute.
        """
        self.backbone = backbone.to(device).eval()
        self.representation = representation
        self.device = device
        self._earlier: list[Tensor] = []
        if representation.blocks > 1:
            # `forward_tokens` gives the last block only; hooks see the others' outputs on the same way to it.
            for block in list(self.backbone.get_submodule("blocks").children())[-representation.blocks : -1]:
                block.register_forward_hook(self._keep)

    def _keep(self, block: nn.Module, inputs: Any, tokens_BND: Tensor) -> None:
        del block, inputs
        self._earlier.append(tokens_BND)

    @torch.inference_mode()
    @full_float32()
    def __call__(self, images_B3HW: Tensor) -> dict[str, Tensor]:
        """Feature vectors of normalised images.

        Returns:
            `knn` [B, D] and `linear` [B, L], float32, on the device.

        Raises:
            ValueError: If the image size does not fit the backbone.
        """
        self._earlier.clear()
        last = self.backbone.forward_tokens(images_B3HW.to(self.device, non_blocking=True))
        token_BD = self._token(last)
        parts = [*(self._token(self._normed(tokens_BND)) for tokens_BND in self._earlier), token_BD]
        if self.representation.mean_patch:
            parts.append(last.patches.mean(1))
        return {KNN: token_BD.float(), LINEAR: torch.cat(parts, dim=1).float()}

    def _normed(self, tokens_BND: Tensor) -> Tokens:
        normed_BND = self.backbone.get_submodule("norm")(tokens_BND)
        prefix = int(getattr(self.backbone, "num_prefix_tokens"))  # noqa: B009 - of ViTs, the only ones with several blocks
        cls_BD = normed_BND[:, 0] if self.representation.class_token else None
        return Tokens(cls_BD, normed_BND[:, prefix:], (1, normed_BND.shape[1] - prefix))

    @staticmethod
    def _token(tokens: Tokens) -> Tensor:
        return tokens.patches.mean(1) if tokens.cls is None else tokens.cls
