"""From a frame's file to the features that label propagation compares, by a backbone of any family.

Shapes: B frames, H x W pixels, h x w positions, D channels.
"""

import math
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.base import check_taps, input_multiple
from backbones.build import AnyBackbone, build_backbone
from backbones.foreign import check_size
from backbones.spec import BackboneSpec, ForeignSpec
from common.distributed import full_float32
from common.images import IMAGENET_MEAN, breaks_off
from eval.propagation.protocol import PropagationSettings

# Masks are drawn on the pixels as they are stored, whatever a camera says of which side is up.
_STORED_PIXELS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION

# Up to so many positions, two frames take less time together than one after the other: 4 % for a ViT-S/16 at 480p on a CPU, where
# three gain no more. The 6,240 positions of a ViT-S/8 stay alone for their memory.
_PAIRED_POSITIONS = 4096


def input_size(height: int, width: int, settings: PropagationSettings, multiple: int) -> tuple[int, int]:
    """Size (height, width) at which the backbone sees a frame of this original size.

    Published: the short side is `short_side`, the long side in proportion, rounded down to a multiple of 64. A square frame counts
    as upright for its mask but as lying for its image in the authors' script, which then mixes up rows and columns where the two
    sizes differ; here it is always lying. Only the `fixed` protocol heeds `multiple`, of which the backbone's input must be one.
    """
    short = settings.short_side
    long_side_multiple = settings.quirks.long_side_multiple
    if long_side_multiple is None:
        whole = math.ceil if settings.round_up else round
        counts = (max(1, whole(side * short / min(height, width) / multiple)) for side in (height, width))
        return tuple(count * multiple for count in counts)  # type: ignore[return-value]
    long = short * max(height, width) // (min(height, width) * long_side_multiple) * long_side_multiple
    return (long, short) if height > width else (short, long)


def read_frame(path: Path, settings: PropagationSettings, multiple: int, size: tuple[int, int] | None = None) -> Tensor:
    """Decode, resize (OpenCV's bilinear, without antialiasing) and normalise a frame: [3, H, W] float32, RGB.

    `size` is the (height, width) of the sequence's first frame, which the others must have too.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such frame") from error
    # OpenCV fills the rest of a truncated JPEG with grey and reports nothing.
    whole = len(content) > 0 and not breaks_off(content)
    pixels_HW3 = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), _STORED_PIXELS) if whole else None
    if pixels_HW3 is None:
        raise ValueError(f"{path}: not a JPEG, or a damaged or truncated one")
    height, width = pixels_HW3.shape[:2]
    if size is not None and (height, width) != size:
        raise ValueError(f"{path}: {width} x {height} pixels, but the first frame has {size[1]} x {size[0]}")
    input_height, input_width = input_size(height, width, settings, multiple)
    bgr_HW3 = cv2.resize(pixels_HW3, (input_width, input_height))
    # Each of the 256 levels is normalised once and looked up.
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    image_3HW = np.empty((3, input_height, input_width), dtype=np.float32)
    for channel, (mean, std) in enumerate(zip(IMAGENET_MEAN, settings.quirks.std, strict=True)):
        table = (levels - np.float32(mean)) / np.float32(std)
        cv2.LUT(cv2.extractChannel(bgr_HW3, 2 - channel), table, dst=image_3HW[channel])
    return torch.from_numpy(image_3HW)


class FeatureExtractor:
    def __init__(self, backbone: AnyBackbone, block: int | None, device: torch.device) -> None:
        """ValueError if the backbone has no such block (`PropagationSettings`)."""
        if block is not None:
            check_taps([block], backbone.spec)
        self.backbone = backbone.to(device).eval()
        self.block = block
        self.device = device

    @property
    def stride(self) -> int:
        """Input pixels per position."""
        return self.backbone.map_strides([self.backbone.spec.num_blocks - 1 if self.block is None else self.block])[0]

    @property
    def input_multiple(self) -> int:
        """What the sides of the input must be a multiple of."""
        return input_multiple(self.backbone.spec)

    def frames_at_once(self, height: int, width: int) -> int:
        """How many frames of this size are best computed together."""
        return 2 if height * width <= _PAIRED_POSITIONS * self.stride**2 else 1

    def describe(self) -> str:
        """What the features are, in words for the result."""
        spec = self.backbone.spec
        if self.block is not None:
            return f"after block {self.block} of {spec.num_blocks} (0-based), without the final norm"
        # A Swin always has its norm, and timm's own networks where they have one; a ResNet never.
        normed = spec.family in ("swin", "timm") or getattr(spec, "final_norm", False)
        return f"after the last of {spec.num_blocks} blocks" + (", after the final norm" if normed else "")

    @torch.inference_mode()
    @full_float32()
    def __call__(self, images_B3HW: Tensor) -> Tensor:
        """Unit-length features [B, h, w, D] of normalised images; the published size does not fit patches of 14 pixels."""
        try:
            images_B3HW = images_B3HW.to(self.device, non_blocking=True)
            if self.block is None:
                tokens = self.backbone.forward_tokens(images_B3HW)
                features_BhwD = tokens.patches.unflatten(1, tokens.grid)
            else:
                features_BhwD = self.backbone.forward_maps(images_B3HW, [self.block])[0].permute(0, 2, 3, 1)
        except ValueError as error:
            raise _with_way_out(error) from error
        return F.normalize(features_BhwD, dim=-1)


def _with_way_out(error: ValueError) -> ValueError:
    return ValueError(f"{error}; --round-up takes the next sizes that fit, and --protocol fixed the nearest")


def check_sizes(spec: BackboneSpec, sizes: Iterable[tuple[int, int]], settings: PropagationSettings) -> None:
    """Check that frames of files of these (height, width) fit a backbone, and that it has the block; ValueError otherwise."""
    if isinstance(spec, ForeignSpec):  # whose sizes were measured
        if settings.block is not None:
            check_taps([settings.block], spec)
        for size in sorted(set(sizes)):
            try:
                check_size(spec, *input_size(*size, settings, input_multiple(spec)))
            except ValueError as error:
                raise _with_way_out(error) from error
        return
    device = torch.device("meta")  # its tensors have no content
    with device:
        network = build_backbone(spec)
    extract = FeatureExtractor(network, settings.block, device)
    for size in sorted(set(sizes)):
        extract(torch.empty(1, 3, *input_size(*size, settings, extract.input_multiple), device=device))
