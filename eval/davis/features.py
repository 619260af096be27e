"""Features of one frame from a backbone of any family.

Shapes: H x W pixels, h x w positions, N = h*w, D channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.base import check_taps
from backbones.build import AnyBackbone
from backbones.onednn import pack_linear_layers


class FeatureExtractor:
    """The patch features that label propagation compares."""

    def __init__(self, backbone: AnyBackbone, block: int | None, device: torch.device) -> None:
        """Keep a backbone ready.

        Args:
            backbone: The network; moved to the device, set to evaluation mode and, on a CPU, made fit for nothing else than being
                applied (`pack_linear_layers`).
            block: See `PropagationSettings.block`.
            device: Where to compute.

        Raises:
            ValueError: If the backbone has no such block.
        """
        if block is not None:
            check_taps([block], backbone.spec)
        self.backbone = backbone.to(device).eval()
        if device.type == "cpu":
            pack_linear_layers(self.backbone)
        self.block = block
        self.device = device

    @property
    def stride(self) -> int:
        """Input pixels per position."""
        return self.backbone.map_strides([self._last_block if self.block is None else self.block])[0]

    @property
    def input_multiple(self) -> int:
        """What the sides of the input must be a multiple of."""
        return max(self.backbone.map_strides(range(self.backbone.spec.num_blocks)))

    @property
    def _last_block(self) -> int:
        return self.backbone.spec.num_blocks - 1

    def describe(self) -> str:
        """What the features are, in words for the result."""
        spec = self.backbone.spec
        if self.block is not None:
            return f"after block {self.block} of {spec.num_blocks} (0-based), without the final norm"
        # A Swin always has its norm; a ResNet never.
        normed = spec.family == "swin" or getattr(spec, "final_norm", False)
        return f"after the last of {spec.num_blocks} blocks" + (", after the final norm" if normed else "")

    @torch.inference_mode()
    def __call__(self, image_3HW: Tensor) -> Tensor:
        """Unit-length features [h, w, D] of a normalised image.

        Raises:
            ValueError: If the image size does not fit the backbone, as the published one does not fit patches of 14 pixels.
        """
        images_13HW = image_3HW.to(self.device, non_blocking=True)[None]
        try:
            features_hwD = self._features(images_13HW)
        except ValueError as error:
            raise ValueError(f"{error}; the protocol `fixed` resizes frames to sizes that fit (--protocol fixed)") from error
        return F.normalize(features_hwD, dim=-1)

    def _features(self, images_13HW: Tensor) -> Tensor:
        """[h, w, D]; CLS token and registers are no part of them."""
        if self.block is not None:
            return self.backbone.forward_maps(images_13HW, [self.block])[0][0].permute(1, 2, 0)
        tokens = self.backbone.forward_tokens(images_13HW)
        return tokens.patches[0].unflatten(0, tokens.grid)
