"""Features of frames from a backbone of any family.

Shapes: B frames, H x W pixels, h x w positions, D channels.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.base import check_taps
from backbones.build import AnyBackbone, build_backbone
from backbones.spec import BackboneSpec
from common.distributed import full_float32
from eval.davis.frames import input_size
from eval.davis.protocol import PropagationSettings

_PAIRED_POSITIONS = 4096
"""Up to so many positions, two frames take less time together than one after the other: 4 % for a ViT-S/16 at 480p on a CPU, where
three gain no more. The 6,240 positions of a ViT-S/8 stay alone for their memory."""


class FeatureExtractor:
    """The patch features that label propagation compares."""

    def __init__(self, backbone: AnyBackbone, block: int | None, device: torch.device) -> None:
        """Move a backbone to the device and set it to evaluation mode; `block` is that of `PropagationSettings`.

        Raises:
            ValueError: If the backbone has no such block.
        """
        if block is not None:
            check_taps([block], backbone.spec)
        self.backbone = backbone.to(device).eval()
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

    def frames_at_once(self, height: int, width: int) -> int:
        """How many frames of this size are best computed together."""
        return 2 if height * width <= _PAIRED_POSITIONS * self.stride**2 else 1

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
    @full_float32()
    def __call__(self, images_B3HW: Tensor) -> Tensor:
        """Unit-length features [B, h, w, D] of normalised images.

        Raises:
            ValueError: If the image size does not fit the backbone, as the published one does not fit patches of 14 pixels.
        """
        try:
            features_BhwD = self._features(images_B3HW.to(self.device, non_blocking=True))
        except ValueError as error:
            raise ValueError(f"{error}; the protocol `fixed` resizes frames to sizes that fit (--protocol fixed)") from error
        return F.normalize(features_BhwD, dim=-1)

    def _features(self, images_B3HW: Tensor) -> Tensor:
        """[B, h, w, D], without CLS token and registers."""
        if self.block is not None:
            return self.backbone.forward_maps(images_B3HW, [self.block])[0].permute(0, 2, 3, 1)
        tokens = self.backbone.forward_tokens(images_B3HW)
        return tokens.patches.unflatten(1, tokens.grid)


def check_sizes(spec: BackboneSpec, sizes: Iterable[tuple[int, int]], settings: PropagationSettings) -> None:
    """Check that frames of files of these (height, width) fit a backbone, by tensors without content.

    Raises:
        ValueError: If the size at which the backbone would see some frame does not fit it, or it has no such block.
    """
    device = torch.device("meta")
    with device:
        network = build_backbone(spec)
    extract = FeatureExtractor(network, settings.block, device)
    for size in sorted(set(sizes)):
        extract(torch.empty(1, 3, *input_size(*size, settings, extract.input_multiple), device=device))
