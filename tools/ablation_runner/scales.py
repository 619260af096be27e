"""How far a pretraining departs from its recipe: shortened on purpose, or otherwise."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from pretrain.config import PretrainConfig

Scale = Literal["tiny", "full"]

COCO_IMAGES = 118_287
"""Images of COCO train2017, on which the papers pretrained."""

_COUNTING_SECTIONS = ("views", "backbone", "dino", "moby", "selfpatch", "matching", "optim")
_COUNTING_TRAIN = ("epochs", "batch_size", "precision")


def tiny_overrides(recipe: PretrainConfig) -> list[str]:
    """KEY=VALUE that shrink a recipe to a trial of about a minute on a laptop.

    The method and the backbone stay; crops, heads, batch and length shrink. Crops keep the grids that a 5 x 5 neighbourhood (5 x 5
    patches of 16) and a Swin (3 x 3 positions of 32) need.

    Args:
        recipe: As it stands.
    """
    overrides = {
        "views.global_size": 96,
        # Unlike the published rate, one for so few and so small steps.
        "optim.lr": 0.01,
        "optim.warmup_epochs": 1,
        "train.epochs": 3,
        "train.batch_size": 8,
        "train.log_every": 1,
        "train.keep_every": 0,
        "data.workers": 1,
    }
    if recipe.views.local_crops:
        overrides |= {"views.local_size": 80, "views.local_crops": 2}
    if recipe.reads("moby"):
        overrides |= {"moby.hidden_dim": 256, "moby.out_dim": 64, "moby.queue": 64}
    if recipe.reads("dino"):
        overrides |= {"dino.out_dim": 512, "dino.hidden_dim": 256, "dino.bottleneck_dim": 64}
        if recipe.reads("selfpatch") and not recipe.patch_contrast:
            overrides |= {"selfpatch.out_dim": 256}
    return [f"{name}={value}" for name, value in overrides.items()]


def departures(recipe: PretrainConfig, used: PretrainConfig, images: int) -> dict[str, str]:
    """In what a pretraining departs from the published one: name -> `published -> used`.

    Left out is what does not change what is computed (paths, hardware, bookkeeping) and the seed.

    Args:
        recipe: As it stands.
        used: With all overrides.
        images: How many there are to pretrain on.
    """
    before, now = _counting(recipe), _counting(used)
    changes = {name: f"{before[name]} -> {now[name]}" for name in before if before[name] != now[name]}
    if images != COCO_IMAGES:
        place = Path(*used.data.path.parts[-2:])
        changes["images"] = f"{COCO_IMAGES} of COCO train2017 -> {images} of {place}"
    return changes


def _counting(config: PretrainConfig) -> dict[str, Any]:
    sections = dataclasses.asdict(config)
    values = {f"{section}.{name}": value for section in _COUNTING_SECTIONS for name, value in sections[section].items()}
    return values | {f"train.{name}": sections["train"][name] for name in _COUNTING_TRAIN}
