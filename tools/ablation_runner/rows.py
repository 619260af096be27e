"""The recipe of each row of the published ablations, small recipes for a trial, and how a run departs from its recipe."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from pretrain.config import PretrainConfig
from tables.layout import LAYOUTS
from tables.reference import read_reference
from tables.rows import Row

Table = Literal["components", "compatibility"]
Scale = Literal["tiny", "full"]

COCO_IMAGES = 118_287  # Images of COCO train2017, on which the papers pretrained.

# Paths, hardware, bookkeeping and the seed do not change what is computed; these fields of `train` do.
_NOT_COMPARED = ("method", "data", "train", "watch")
_TRAIN_FIELDS = ("epochs", "batch_size", "precision")


ROWS: dict[Table, dict[str, str]] = {
    "components": {
        "a": "coco_dino_vit_tiny",
        "b-3x3": "coco_selfpatch_vit_tiny",
        "b-5x5": "coco_selfpatch_vit_tiny_window5",
        "b-all": "coco_selfpatch_vit_tiny_all",
        "c-k1": "coco_selfpatch_vit_tiny_k1",
        "c-k2": "coco_selfpatch_vit_tiny_k2",
        "c-k4": "coco_selfpatch_vit_tiny",
        "c-k8": "coco_selfpatch_vit_tiny_k8",
        "d-off": "coco_selfpatch_vit_tiny_average",
        "d-on": "coco_selfpatch_vit_tiny",
    },
    "compatibility": {
        "moby-ti16": "coco_moby_vit_tiny",
        "moby-selfpatch-ti16-no-negatives": "coco_moby_selfpatch_vit_tiny_no_negatives",
        "moby-selfpatch-ti16": "coco_moby_selfpatch_vit_tiny",
        "moby-swin": "coco_moby_swin_tiny",
        "moby-selfpatch-swin": "coco_moby_selfpatch_swin_tiny",
        "dino-ti16": "coco_dino_vit_tiny",
        "dino-selfpatch-ti16": "coco_selfpatch_vit_tiny",
        "dino-ti8": "coco_dino_vit_tiny8",
        "dino-selfpatch-ti8": "coco_selfpatch_vit_tiny8",
    },
}
"""The name that `--only` takes -> the recipe, for the rows of the reference table in its order.

Rows of one recipe share its run, also across the two tables."""


def published_rows(table: Table) -> list[Row]:
    """The reference table."""
    return read_reference(next(layout for layout in LAYOUTS if layout.name == table))


def choose_rows(table: Table, only: list[str]) -> dict[str, str]:
    """The part of `ROWS` with these names or recipes, or all of it; ValueError for an unknown name lists the rows."""
    rows = ROWS[table]
    if unknown := [name for name in only if name not in rows and name not in rows.values()]:
        raise ValueError(
            f"--only: no row {', '.join(unknown)} in the table {table}; its rows: {', '.join(rows)} (or their recipes)"
        )
    return {name: recipe for name, recipe in rows.items() if not only or name in only or recipe in only}


def tiny_changes(recipe: PretrainConfig) -> list[str]:
    """The changes KEY=VALUE that reduce a recipe to a trial of about a minute on a laptop.

    The method and the backbone stay; crops, heads, batch and length shrink. The crops still have the grids that a 5 x 5 neighbourhood
    (5 x 5 patches of 16 pixels) and a Swin (3 x 3 positions of 32 pixels) need.
    """
    changes: dict[str, object] = {
        "views.global_size": 96,
        # Unlike the published learning rate, this one suits a few steps of small batches.
        "optim.lr": 0.01,
        "optim.warmup_epochs": 1,
        "train.epochs": 3,
        "train.batch_size": 8,
        "train.log_every": 1,
        "train.keep_every": 0,
        "data.workers": 1,
    }
    if recipe.views.local_crops:
        changes |= {"views.local_size": 80, "views.local_crops": 2}
    if recipe.reads("moby"):
        changes |= {"moby.hidden_dim": 256, "moby.out_dim": 64, "moby.queue": 64}
    if recipe.reads("dino"):
        changes |= {"dino.out_dim": 512, "dino.hidden_dim": 256, "dino.bottleneck_dim": 64}
        if recipe.reads("selfpatch") and not recipe.patch_contrast:
            changes |= {"selfpatch.out_dim": 256}
    return [f"{name}={value}" for name, value in changes.items()]


def departures(recipe: PretrainConfig, used: PretrainConfig, images: int) -> list[str]:
    """How a pretraining on this number of images departs from the published one: `NAME published -> used` for each change."""
    before, now = _compared_fields(recipe), _compared_fields(used)
    changes = [f"{name} {before[name]} -> {now[name]}" for name in before if before[name] != now[name]]
    if images != COCO_IMAGES:
        changes.append(f"images {COCO_IMAGES} of COCO train2017 -> {images} of {Path(*used.data.path.parts[-2:])}")
    return changes


def _compared_fields(config: PretrainConfig) -> dict[str, Any]:
    sections = dataclasses.asdict(config)
    compared = [section for section in sections if section not in _NOT_COMPARED]
    values = {f"{section}.{name}": value for section in compared for name, value in sections[section].items()}
    return values | {f"train.{name}": sections["train"][name] for name in _TRAIN_FIELDS}
