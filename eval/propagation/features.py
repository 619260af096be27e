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
from PIL import Image
from torch import Tensor

from backbones.base import check_size, check_taps, input_multiple
from backbones.build import AnyBackbone, build_backbone
from backbones.spec import BackboneSpec, ForeignSpec
from common.distributed import full_float32
from common.images import IMAGENET_MEAN, breaks_off
from eval.propagation.masks import Picture, read_image
from eval.propagation.protocol import OF_DINO, PropagationSettings, Rules

# Masks are drawn on the pixels as they are stored, whatever a camera says of which side is up.
_STORED_PIXELS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION

# Up to so many positions, two frames take less time together than one after the other: 4 % for a ViT-S/16 at 480p on a CPU, where
# three gain no more. The 6,240 positions of a ViT-S/8 stay alone for their memory.
_PAIRED_POSITIONS = 4096


def input_size(height: int, width: int, rules: Rules, multiple: int) -> tuple[int, int]:
    """Size (height, width) at which the backbone sees a frame of this original size; see `Rules.sides`.

    A square frame counts as upright for its mask but as lying for its image in DINO's script, which then mixes up rows and columns
    where the two sizes differ; here it is always lying, but upright for `short up, then long`, whose source has it so. `multiple` is
    what the sides of the backbone's input must be one of; `long down` and `stretched` do not heed it.
    """
    short, upright = rules.short_side, height > width
    if rules.sides == "stretched":
        assert rules.stretched_to is not None
        return rules.stretched_to
    if rules.sides == "long down":
        assert rules.long_side_multiple is not None
        unit = rules.long_side_multiple
        long = short * max(height, width) // (min(height, width) * unit) * unit
        return (long, short) if upright else (short, long)
    if rules.sides == "short up, then long":
        rounded = math.ceil(short / multiple) * multiple
        # As there in floating point, whose error can lead to the next multiple.
        long = math.ceil(max(height, width) * rounded / min(height, width) / multiple) * multiple
        return (long, rounded) if height >= width else (rounded, long)
    whole = math.ceil if rules.sides == "up" else round
    rows, columns = (max(1, whole(side * short / min(height, width) / multiple)) for side in (height, width))
    return rows * multiple, columns * multiple


def read_frame(path: Path, size: tuple[int, int], rules: Rules, file_size: tuple[int, int] | None = None) -> Tensor:
    """Decode a frame, resize it to the input's `size` (height, width) and normalise it: [3, H, W] float32, RGB.

    `file_size` is the (height, width) of the sequence's first frame, which the others must have too.
    """
    pixels_HW3 = _decoded(path, rules)
    height, width = pixels_HW3.shape[:2]
    if file_size is not None and (height, width) != file_size:
        raise ValueError(f"{path}: {width} x {height} pixels, but the first frame has {file_size[1]} x {file_size[0]}")
    if rules.resize == "opencv":
        fractions_HW3 = cv2.resize(pixels_HW3.astype(np.float32) / np.float32(255), size[::-1])
        normalised_HW3 = (fractions_HW3 - np.array(IMAGENET_MEAN, np.float32)) / np.array(rules.std, np.float32)
        return torch.from_numpy(np.ascontiguousarray(normalised_HW3.transpose(2, 0, 1)))
    if rules.resize == "pillow, bicubic":
        resized_HW3 = np.asarray(Image.fromarray(pixels_HW3).resize(size[::-1], Image.Resampling.BICUBIC))
    else:
        resized_HW3 = cv2.resize(pixels_HW3, size[::-1])
    # Each of the 256 levels is normalised once and looked up.
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    image_3HW = np.empty((3, *size), dtype=np.float32)
    for channel, (mean, std) in enumerate(zip(IMAGENET_MEAN, rules.std, strict=True)):
        table = (levels - np.float32(mean)) / np.float32(std)
        cv2.LUT(cv2.extractChannel(resized_HW3, channel), table, dst=image_3HW[channel])
    return torch.from_numpy(image_3HW)


def _decoded(path: Path, rules: Rules) -> Picture:
    """The pixels [H, W, 3] of a frame, RGB, by the decoder that the protocol's source uses."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such frame") from error
    # OpenCV fills the rest of a truncated JPEG with grey and reports nothing.
    whole = len(content) > 0 and not breaks_off(content)
    if whole and rules.resize == "pillow, bicubic":
        return read_image(path)
    pixels_HW3 = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), _STORED_PIXELS) if whole else None
    if pixels_HW3 is None:
        raise ValueError(f"{path}: not a JPEG, or a damaged or truncated one")
    return cv2.cvtColor(pixels_HW3, cv2.COLOR_BGR2RGB)


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
        """Unit-length features [B, h, w, D] of normalised images; ValueError if their size does not fit the backbone."""
        images_B3HW = images_B3HW.to(self.device, non_blocking=True)
        if self.block is None:
            tokens = self.backbone.forward_tokens(images_B3HW)
            features_BhwD = tokens.patches.unflatten(1, tokens.grid)
        else:
            features_BhwD = self.backbone.forward_maps(images_B3HW, [self.block])[0].permute(0, 2, 3, 1)
        return F.normalize(features_BhwD, dim=-1)


def check_sizes(spec: BackboneSpec, sizes: Iterable[tuple[int, int]], settings: PropagationSettings) -> None:
    """Check that frames of files of these (height, width) fit a backbone, and that it has the block; ValueError otherwise."""
    way_out = "--protocol dinov3 takes sizes that fit"
    if settings.protocol in OF_DINO:
        way_out = (
            "--round-up takes the next sizes that fit, --protocol fixed the nearest, --protocol dinov3 those of other figures"
        )
    inputs = (input_size(*size, settings.rules, input_multiple(spec)) for size in sizes)
    check_inputs(spec, inputs, settings.block, f"; {way_out}")


def check_inputs(spec: BackboneSpec, inputs: Iterable[tuple[int, int]], block: int | None, way_out: str = "") -> None:
    """As `check_sizes`, for inputs of these (height, width); `way_out` ends the message."""
    device = torch.device("meta")  # its tensors have no content
    if isinstance(spec, ForeignSpec):
        if block is not None:
            check_taps([block], spec)
    else:
        with device:
            network = build_backbone(spec)
        extract = FeatureExtractor(network, block, device)
    for size in sorted(set(inputs)):
        try:
            if isinstance(spec, ForeignSpec):
                check_size(spec, *size)  # by those that were measured
            else:
                extract(torch.empty(1, 3, *size, device=device))
        except ValueError as error:
            raise ValueError(f"{error}{way_out}") from error
