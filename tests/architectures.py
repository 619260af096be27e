"""Functions as users write them: each returns a network, or makes a mistake that has a message of its own."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.base import Tokens
from backbones.foreign import timm_spec
from tests.toy import write_toy_backbone

WIDTH = 24


class Patches(nn.Module):
    """One map [B, D, h, w] of non-overlapping patches; `extra` has no part in it."""

    def __init__(self, patch: int = 16) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, WIDTH, patch, stride=patch)
        self.extra = nn.Linear(WIDTH, WIDTH)

    def forward(self, images: Tensor) -> Tensor:
        return F.gelu(self.embed(images))


class Stages(nn.Module):
    """Maps of the strides 4, 8, 16 and 32, as a list."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 8, 16, 24, 32)
        self.stages = nn.ModuleList(
            nn.Conv2d(given, width, 3, stride=4 if given == 3 else 2, padding=1) for given, width in pairwise(widths)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [images]
        for stage in self.stages:
            maps.append(F.relu(stage(maps[-1])))
        return maps[1:]


class Blocks(nn.Module):
    """The two methods of `backbones.base.Backbone`, with six blocks of patches of 14 pixels and a CLS token."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.cls = nn.Conv2d(3, WIDTH, 14, stride=14), nn.Parameter(torch.ones(1, WIDTH))
        self.blocks = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 1) for _ in range(6))

    def forward_tokens(self, images: Tensor) -> Tokens:
        (last,) = self.forward_maps(images, [5])
        return Tokens(self.cls.expand(len(images), -1), last.flatten(2).transpose(1, 2), (last.shape[2], last.shape[3]))

    def forward_maps(self, images: Tensor, taps: Sequence[int]) -> list[Tensor]:
        if max(taps) >= len(self.blocks):
            raise ValueError("there are six blocks")
        features, maps = self.embed(images), []
        for number, block in enumerate(self.blocks):
            features = features + block(features)
            if number in taps:
                maps.append(features)
        return maps


class Flat(Patches):
    """Forgets the grid."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).flatten(2)


class Frozen(Patches):
    """Is only meant to be looked at."""

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)


class Named(Patches):
    """Gives a dict."""

    def forward(self, images: Tensor) -> Any:
        return {"map": super().forward(images)}


def one_map() -> nn.Module:
    return Patches()


def patches_of_14() -> nn.Module:
    return Patches(14)


def means_of_14() -> nn.Module:
    return nn.AvgPool2d(14)


def stages() -> nn.Module:
    return Stages()


def blocks() -> nn.Module:
    return Blocks()


def flat() -> nn.Module:
    return Flat()


def frozen() -> nn.Module:
    return Frozen()


def frozen_parameters() -> nn.Module:
    return Patches().requires_grad_(False)


def named() -> nn.Module:
    return Named()


def weights_alone() -> Any:
    return Patches().state_dict()


def failing() -> nn.Module:
    raise RuntimeError("no checkpoint\nat all")


NOT_A_FUNCTION = 3

FUNCTIONS = "tests.architectures"
ANY = ["convnext_atto", "eva02_tiny_patch14_224", f"{FUNCTIONS}:one_map", f"{FUNCTIONS}:stages", f"{FUNCTIONS}:blocks"]
"""Backbones that are none of ours: maps of four strides and of one, by timm and by users."""


def backbone_of(name: str, folder: Path) -> Path:
    """What `--backbone` takes for one of `ANY`: a backbone file of a model of timm with fresh weights, or the function itself."""
    return Path(name) if ":" in name else write_toy_backbone(folder, timm_spec(name))
