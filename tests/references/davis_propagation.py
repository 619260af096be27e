"""Label propagation as the authors' script does it: dense affinities, a mask of reachable pairs, a sort over everything.

Written from the description of `eval_video_segmentation.py` (facebookresearch/dino 7c446df, SelfPatch 81aef149) to be slow and
obvious.
"""

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def read_frame(path: Path) -> tuple[Tensor, tuple[int, int]]:
    pixels = cv2.imread(str(path))
    assert pixels is not None
    height, width, _ = pixels.shape
    if height > width:
        new_width, new_height = 480, int(480 * height / width // 64 * 64)
    else:
        new_height, new_width = 480, int(480 * width / height // 64 * 64)
    scaled = cv2.resize(pixels, (new_width, new_height)).astype(np.float32) / 255.0
    image = torch.from_numpy(np.ascontiguousarray(scaled[:, :, ::-1].transpose(2, 0, 1)))
    for channel, mean, std in zip(image, (0.485, 0.456, 0.406), (0.228, 0.224, 0.225), strict=True):
        channel.sub_(mean).div_(std)
    return image, (height, width)


def reachable(h: int, w: int, radius: int) -> Tensor:
    allowed = torch.zeros(h, w, h, w)
    for i in range(h):
        for j in range(w):
            allowed[i, j, max(0, i - radius) : i + radius + 1, max(0, j - radius) : j + radius + 1] = 1
    return allowed.reshape(h * w, h * w)


def propagate_labels(
    target_ND: Tensor, context: list[Tensor], labels: list[Tensor], allowed_NN: Tensor | None, topk: int, temperature: float
) -> Tensor:
    """Labels [C, h, w] from the context's features [D, N] and labels [C, h, w]."""
    target = F.normalize(target_ND, dim=1)[None].repeat(len(context), 1, 1)
    sources = F.normalize(torch.stack(context), dim=1)
    affinity = torch.exp(torch.bmm(target, sources) / temperature)
    if allowed_NN is not None:
        affinity *= allowed_NN[None].repeat(len(context), 1, 1)
    affinity = affinity.transpose(2, 1).reshape(-1, len(target_ND))
    least = torch.topk(affinity, dim=0, k=topk).values.min(dim=0).values
    affinity[affinity < least] = 0
    affinity = affinity / affinity.sum(dim=0, keepdim=True)
    channels, h, w = labels[0].shape
    flat = torch.stack(labels).reshape(len(labels), channels, -1).transpose(2, 1).reshape(-1, channels).T
    return (flat @ affinity).reshape(channels, h, w)


def propagate_sequence(
    frames: list[Path],
    first_mask: np.ndarray,
    tokens: Callable[[Tensor], Tensor],
    patch_size: int,
    n_last_frames: int = 7,
    radius: int = 12,
    topk: int = 5,
    temperature: float = 0.1,
) -> Iterator[np.ndarray]:
    """Masks of all frames but the first; `tokens` maps an image [3, H, W] to patch tokens [N, D]; a radius of 0 means no limit."""
    first, _ = read_frame(frames[0])
    h, w = first.shape[1] // patch_size, first.shape[2] // patch_size
    small = np.array(Image.fromarray(first_mask).resize((w, h), Image.Resampling.NEAREST))
    first_features = tokens(first).T
    device = first_features.device
    first_labels = F.one_hot(torch.from_numpy(small.astype(np.int64))).permute(2, 0, 1).float().to(device)
    recent: deque[tuple[Tensor, Tensor]] = deque(maxlen=n_last_frames)
    allowed = reachable(h, w, radius).to(device) if radius else None
    for path in frames[1:]:
        image, (height, width) = read_frame(path)
        target = tokens(image)
        context = [first_features, *(features for features, _ in recent)]
        context_labels = [first_labels, *(labels for _, labels in recent)]
        labels = propagate_labels(target, context, context_labels, allowed, topk, temperature)
        recent.append((target.T, labels))
        large = F.interpolate(labels[None], scale_factor=patch_size, mode="bilinear", align_corners=False)[0]
        for channel in large:
            if channel.max() > 0:
                channel -= channel.min().clone()
                channel /= channel.max().clone()
        ids = large.max(dim=0).indices.cpu().numpy().astype(np.uint8)
        yield np.array(Image.fromarray(ids).resize((width, height), Image.Resampling.NEAREST))
