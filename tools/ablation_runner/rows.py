"""The recipe of each row of the published ablations, small recipes for a trial, and how a run departs from its recipe."""

import dataclasses
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pretrain.config import PretrainConfig
from tables.layout import LAYOUTS
from tables.reference import PublishedRow, read_reference

Table = Literal["components", "compatibility"]
Scale = Literal["tiny", "full"]

COCO_IMAGES = 118_287  # Images of COCO train2017, on which the papers pretrained.

# Paths, hardware, bookkeeping and the seed do not change what is computed; these fields of `train` do.
_NOT_COMPARED = ("method", "data", "train", "watch")
_TRAIN_FIELDS = ("epochs", "batch_size", "precision")


class AblationRow(NamedTuple):
    """A row that can be measured."""

    name: str  # The name that `--only` takes.
    recipe: str  # its name in pretrain/recipes
    published: dict[str, str]  # Descriptors that identify the published row.

    def find_published(self, rows: list[PublishedRow]) -> PublishedRow:
        """The row of the reference table; ValueError unless exactly one has the descriptors."""
        found = [row for row in rows if self.published.items() <= row.descriptors.items()]
        if len(found) != 1:
            raise ValueError(
                f"the row {self.name} matches {len(found)} rows of the reference table instead of 1: {self.published}"
            )
        return found[0]


def _component(name: str, recipe: str, part: str, neighbours: str, k: str, aggregation: str) -> AblationRow:
    return AblationRow(name, recipe, {"part": part, "neighbours": neighbours, "k": k, "aggregation": aggregation})


def _combination(name: str, recipe: str, method: str, backbone: str, negatives: str) -> AblationRow:
    return AblationRow(name, recipe, {"method": method, "backbone": backbone, "patch_negatives": negatives})


_AVERAGE = "off (average pooling)"
ROWS: dict[Table, tuple[AblationRow, ...]] = {
    "components": (
        _component("a", "coco_dino_vit_tiny", "a", "", "", ""),
        _component("b-3x3", "coco_selfpatch_vit_tiny", "b", "3x3", "4", "on"),
        _component("b-5x5", "coco_selfpatch_vit_tiny_window5", "b", "5x5", "4", "on"),
        _component("b-all", "coco_selfpatch_vit_tiny_all", "b", "all", "4", "on"),
        _component("c-k1", "coco_selfpatch_vit_tiny_k1", "c", "3x3", "1", "on"),
        _component("c-k2", "coco_selfpatch_vit_tiny_k2", "c", "3x3", "2", "on"),
        _component("c-k4", "coco_selfpatch_vit_tiny", "c", "3x3", "4", "on"),
        _component("c-k8", "coco_selfpatch_vit_tiny_k8", "c", "3x3", "8", "on"),
        _component("d-off", "coco_selfpatch_vit_tiny_average", "d", "3x3", "4", _AVERAGE),
        _component("d-on", "coco_selfpatch_vit_tiny", "d", "3x3", "4", "on"),
    ),
    "compatibility": (
        _combination("moby-ti16", "coco_moby_vit_tiny", "MoBY", "ViT-Ti/16", ""),
        _combination(
            "moby-selfpatch-ti16-no-negatives",
            "coco_moby_selfpatch_vit_tiny_no_negatives",
            "MoBY+SelfPatch",
            "ViT-Ti/16",
            "no",
        ),
        _combination("moby-selfpatch-ti16", "coco_moby_selfpatch_vit_tiny", "MoBY+SelfPatch", "ViT-Ti/16", "yes"),
        _combination("moby-swin", "coco_moby_swin_tiny", "MoBY", "Swin-T", ""),
        _combination("moby-selfpatch-swin", "coco_moby_selfpatch_swin_tiny", "MoBY+SelfPatch", "Swin-T", "yes"),
        _combination("dino-ti16", "coco_dino_vit_tiny", "DINO", "ViT-Ti/16", ""),
        _combination("dino-selfpatch-ti16", "coco_selfpatch_vit_tiny", "DINO+SelfPatch", "ViT-Ti/16", "no"),
        _combination("dino-ti8", "coco_dino_vit_tiny8", "DINO", "ViT-Ti/8", ""),
        _combination("dino-selfpatch-ti8", "coco_selfpatch_vit_tiny8", "DINO+SelfPatch", "ViT-Ti/8", "no"),
    ),
}
"""In the order of the paper. Rows of one recipe share its run, also across the two tables."""


def published_rows(table: Table) -> list[PublishedRow]:
    """The reference table."""
    return read_reference(next(layout for layout in LAYOUTS if layout.name == table))


def choose_rows(table: Table, only: list[str]) -> list[AblationRow]:
    """The rows with these names or recipes, or all rows, in the paper's order; ValueError for an unknown name lists the rows."""
    rows = ROWS[table]
    known = {name for row in rows for name in (row.name, row.recipe)}
    if unknown := [name for name in only if name not in known]:
        names = ", ".join(row.name for row in rows)
        raise ValueError(f"--only: no row {', '.join(unknown)} in the table {table}; its rows: {names} (or their recipes)")
    return [row for row in rows if not only or row.name in only or row.recipe in only]


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


def departures(recipe: PretrainConfig, used: PretrainConfig, images: int) -> dict[str, str]:
    """How a pretraining on this number of images departs from the published one: name -> `published -> used`."""
    before, now = _compared_fields(recipe), _compared_fields(used)
    changes = {name: f"{before[name]} -> {now[name]}" for name in before if before[name] != now[name]}
    if images != COCO_IMAGES:
        place = Path(*used.data.path.parts[-2:])
        changes["images"] = f"{COCO_IMAGES} of COCO train2017 -> {images} of {place}"
    return changes


def _compared_fields(config: PretrainConfig) -> dict[str, Any]:
    sections = dataclasses.asdict(config)
    compared = [section for section in sections if section not in _NOT_COMPARED]
    values = {f"{section}.{name}": value for section in compared for name, value in sections[section].items()}
    return values | {f"train.{name}": sections["train"][name] for name in _TRAIN_FIELDS}
