"""Shortened recipes stay the recipes that they are, and departures are found."""

import pytest

from pretrain.config import parse_run
from tools.ablation_runner.job import as_options
from tools.ablation_runner.rows import ROWS
from tools.ablation_runner.scales import COCO_IMAGES, departures, tiny_overrides

RECIPES = sorted({row.recipe for rows in ROWS.values() for row in rows})


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_can_be_shortened_and_keeps_method_and_backbone(recipe: str) -> None:
    full = parse_run([recipe])
    tiny = parse_run([recipe, *as_options(tiny_overrides(full))])
    assert (tiny.method, tiny.backbone) == (full.method, full.backbone)
    for name in ("window", "k", "aggregation", "negatives", "border"):
        assert getattr(tiny.selfpatch, name) == getattr(full.selfpatch, name)
    assert tiny.train.epochs * tiny.train.batch_size < full.train.batch_size
    found = departures(full, tiny, COCO_IMAGES)
    assert found["train.epochs"] == "200 -> 3"
    assert not [name for name in found if name.startswith("backbone.")]


def test_what_changes_nothing_that_is_computed_is_no_departure() -> None:
    recipe = parse_run(["coco_selfpatch_vit_tiny"])
    elsewhere = ["data.path=x/coco/train2017", "data.workers=3", "train.output=y", "train.log_every=7", "train.seed=4"]
    assert departures(recipe, parse_run(["coco_selfpatch_vit_tiny", *as_options(elsewhere)]), COCO_IMAGES) == {}
    longer = parse_run(["coco_selfpatch_vit_tiny", *as_options(["selfpatch.k=3", "data.path=any/photos"])])
    assert departures(recipe, longer, 48) == {"selfpatch.k": "4 -> 3", "images": "118287 of COCO train2017 -> 48 of any/photos"}
