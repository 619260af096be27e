"""Every published row has a recipe, and the recipe does what the row says."""

import typing

import pytest

from pretrain.config import PretrainConfig, parse_run
from pretrain.recipe_files import recipe_names
from tables.layout import LAYOUTS
from tools.ablation_runner.rows import ROWS, Table, choose_rows, published_rows

WINDOWS = {3: "3x3", 5: "5x5", 0: "all"}
AGGREGATIONS = {"attention": "on", "average": "off (average pooling)"}
METHODS = {"dino": "DINO", "moby": "MoBY", "selfpatch": "DINO+SelfPatch", "moby_selfpatch": "MoBY+SelfPatch"}


def backbone_name(config: PretrainConfig) -> str:
    if config.backbone.family == "swin":
        assert (config.backbone.embed_dim, config.backbone.stage_depths) == (96, (2, 2, 6, 2))
        return "Swin-T"
    assert (config.backbone.embed_dim, config.backbone.depth) == (192, 12)
    return f"ViT-Ti/{config.backbone.patch_size}"


def described(config: PretrainConfig, table: Table) -> dict[str, str]:
    """What the columns of the published table say of a recipe."""
    facts = {"method": METHODS[config.method], "backbone": backbone_name(config), "pretraining_data": "COCO"}
    patch = config.selfpatch
    if table == "compatibility":
        return facts | {"patch_negatives": {False: "no", True: "yes"}[patch.negatives] if config.reads("selfpatch") else ""}
    if not config.reads("selfpatch"):
        return facts | {"neighbours": "", "k": "", "aggregation": ""}
    return facts | {"neighbours": WINDOWS[patch.window], "k": str(patch.k), "aggregation": AGGREGATIONS[patch.aggregation]}


@pytest.mark.parametrize("table", typing.get_args(Table))
def test_every_published_row_has_the_recipe_that_it_describes(table: Table) -> None:
    published = published_rows(table)
    found = [row.find_published(published) for row in ROWS[table]]
    assert found == published, "every row, in the paper's order"
    for row, reference in zip(ROWS[table], found, strict=True):
        assert row.recipe in recipe_names()
        config = parse_run([row.recipe])
        facts = described(config, table)
        assert {name: reference.descriptors[name] for name in facts} == facts, row.name
        assert config.data.path.parts[-2:] == ("coco", "train2017")
    assert len({row.name for row in ROWS[table]}) == len(published)


def test_the_tables_are_those_whose_rows_are_ablations() -> None:
    assert set(ROWS) == {layout.name for layout in LAYOUTS} & set(typing.get_args(Table)) == set(typing.get_args(Table))


def test_rows_are_chosen_by_their_name_or_recipe_in_the_papers_order() -> None:
    assert choose_rows("components", []) == list(ROWS["components"])
    chosen = choose_rows("components", ["d-off", "coco_selfpatch_vit_tiny", "a"])
    assert [row.name for row in chosen] == ["a", "b-3x3", "c-k4", "d-off", "d-on"]
    with pytest.raises(ValueError, match=r"no row moby-swin in the table components; its rows: a, b-3x3"):
        choose_rows("components", ["moby-swin"])
