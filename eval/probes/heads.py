"""The layer on frozen features.

Shapes: B images, D channels, h x w patches, K classes.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eval.probes.dense import enlarged


class LinearHead(nn.Module):
    """Dropout of channels, batch norm where the protocol has it, and a 1 x 1 convolution.

    Fresh weights are normal with this deviation and biases 0; without a deviation, both are as torch makes them.
    """

    def __init__(self, channels: int, num_classes: int, batch_norm: bool, deviation: float | None, seed: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels) if batch_norm else nn.Identity()
        self.conv = nn.Conv2d(channels, num_classes, 1)
        generator = torch.Generator().manual_seed(seed)  # the same for all heads of a sweep, as for one alone
        if deviation is None:
            bound = 1 / math.sqrt(channels)
            nn.init.uniform_(self.conv.weight, -bound, bound, generator=generator)
            nn.init.uniform_(self.conv.get_parameter("bias"), -bound, bound, generator=generator)
        else:
            nn.init.normal_(self.conv.weight, std=deviation, generator=generator)
            nn.init.zeros_(self.conv.get_parameter("bias"))

    def forward(self, maps: Sequence[Tensor], kept_BD: Tensor | None = None) -> Tensor:
        """Logits [B, K, h, w] of maps [B, D, h, w], which get the first one's size; channels are multiplied by `kept_BD` [B, D]."""
        size = maps[0].shape[-2:]
        same = [found if found.shape[-2:] == size else enlarged(found, size) for found in maps]
        features_BDhw = torch.cat(same, dim=1) if len(same) > 1 else same[0]
        if kept_BD is not None:
            features_BDhw = features_BDhw * kept_BD[:, :, None, None]
        logits_BKhw: Tensor = self.conv(self.norm(features_BDhw))
        return logits_BKhw


def kept_channels(batch: int, channels: int, dropout: float, seed: int) -> Tensor | None:
    """What dropout of whole channels multiplies the features by, [B, D]: 0 or 1 / (1 - p)."""
    if not dropout:
        return None
    drawn_BD = torch.rand(batch, channels, generator=torch.Generator().manual_seed(seed))
    return (drawn_BD >= dropout).float() / (1 - dropout)
