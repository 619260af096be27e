"""Which recipe is behind which row of the published ablations."""

from dataclasses import dataclass
from typing import Literal

from tables.layout import LAYOUTS
from tables.reference import PublishedRow, read_reference

Table = Literal["components", "compatibility"]


@dataclass(frozen=True, kw_only=True)
class AblationRow:
    """A row that can be measured."""

    name: str
    """What `--only` calls it."""
    recipe: str
    """In pretrain/recipes."""
    published: dict[str, str]
    """Descriptors that single out the published row."""

    def find_published(self, rows: list[PublishedRow]) -> PublishedRow:
        """Its row of the reference table.

        Raises:
            ValueError: If none or several have its descriptors.
        """
        found = [row for row in rows if self.published.items() <= row.descriptors.items()]
        if len(found) != 1:
            raise ValueError(f"the row {self.name} is {len(found)} rows of the reference table, wanted 1: {self.published}")
        return found[0]


def _component(name: str, recipe: str, part: str, neighbours: str, k: str, aggregation: str) -> AblationRow:
    published = {"part": part, "neighbours": neighbours, "k": k, "aggregation": aggregation}
    return AblationRow(name=name, recipe=recipe, published=published)


def _combination(name: str, recipe: str, method: str, backbone: str, negatives: str) -> AblationRow:
    published = {"method": method, "backbone": backbone, "patch_negatives": negatives}
    return AblationRow(name=name, recipe=recipe, published=published)


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
    """The rows that are wanted, in the paper's order.

    Args:
        table: Which ablation.
        only: Names of rows or recipes; empty for all.

    Raises:
        ValueError: For a name that is neither; lists the rows.
    """
    rows = ROWS[table]
    known = {name for row in rows for name in (row.name, row.recipe)}
    if unknown := [name for name in only if name not in known]:
        names = ", ".join(row.name for row in rows)
        raise ValueError(f"--only: no row {', '.join(unknown)} in the table {table}; its rows: {names} (or their recipes)")
    return [row for row in rows if not only or row.name in only or row.recipe in only]
