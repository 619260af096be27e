"""docs/protocols.md against what runs: every value that it states, and no constant that it leaves out."""

import importlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import eval.openmmlab  # noqa: F401 - before anything of mmdet is imported
from backbones.spec import ViTSpec
from eval.davis.protocol import PropagationSettings, propagation_settings
from eval.detection import experiment as detection
from eval.detection.config import DetectionConfig
from eval.detection.data import FULL_SIZES, FULL_TRAINABLE
from eval.detection.data import Split as CocoSplit
from eval.detection.protocol import protocol_settings as detection_settings
from eval.openmmlab.batch import BatchPlan
from eval.openmmlab.config_values import lookup, plain
from eval.segmentation import experiment as segmentation
from eval.segmentation.config import SegmentationConfig
from eval.segmentation.data import Split as AdeSplit
from eval.segmentation.protocol import protocol_settings as segmentation_settings

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "protocols.md"
COLUMNS = ["Constant", "Value", "Where", "Source", "Where sources and we differ"]
VIT_SMALL = ViTSpec(embed_dim=384, depth=12, num_heads=6, patch_size=16, image_size=224, class_token=False, final_norm=False)
GPU = torch.device("cuda")
PATHS: dict[str, Any] = {"backbone": Path("b.safetensors"), "data": Path("d"), "output": Path("o")}

# Parts of a resolved config all of whose values must be in the table.
COMPLETE = (
    *("model", "optim_wrapper", "param_scheduler", "train_cfg"),
    *("train_dataloader.batch_size", "train_dataloader.dataset.pipeline", "test_dataloader.dataset.pipeline"),
)
# Names in there that are no constants of a protocol.
NO_CONSTANTS = {"_scope_", "backbone_file", "compile", "val_interval"}


@dataclass(frozen=True)
class Row:
    constant: str
    value: Any
    where: str
    source: str


def tables() -> dict[str, list[Row]]:
    """The rows under each heading that has a table of constants."""
    found: dict[str, list[Row]] = {}
    for section in DOCUMENT.read_text(encoding="utf-8").split("\n## ")[1:]:
        heading, *lines = section.splitlines()
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
        if cells:
            assert cells[0] == COLUMNS, heading
            found[heading] = [_row(*row) for row in cells[2:]]
    return found


def _row(constant: str, value: str, where: str, source: str, difference: str) -> Row:
    del difference
    assert re.fullmatch(r"`.+`", value), f"{constant}: {value} is not JSON in backticks"
    assert re.fullmatch(r"`(config|settings|code)\.\S+`", where), f"{constant}: {where}"
    assert source, f"{constant} has no source"
    return Row(constant, json.loads(value.strip("`")), where.strip("`"), source)


def coco() -> dict[str, Any]:
    images = {name: tuple(f"{index}.jpg 1" for index in range(size)) for name, size in FULL_SIZES.items()}
    splits = {
        name: CocoSplit(
            root=Path("coco"),
            name=name,  # type: ignore[arg-type]
            images=lines,
            trainable=lines[:FULL_TRAINABLE],
            limit=None,
            categories=((1, "person"),),
        )
        for name, lines in images.items()
    }
    batch = BatchPlan(total=8, per_device=1, world_size=8)
    config = detection.resolve(DetectionConfig(**PATHS), VIT_SMALL, splits, batch, "float32")
    return {"config": config, "settings": detection_settings(config, VIT_SMALL, batch, GPU)}


def ade20k() -> dict[str, Any]:
    splits = {
        name: AdeSplit(root=Path("ade"), name=name, stems=("a",) * size, restricted=False)
        for name, size in {"training": 20210, "validation": 2000}.items()
    }
    batch = BatchPlan(total=16, per_device=4, world_size=4)
    config = segmentation.resolve(SegmentationConfig(**PATHS), VIT_SMALL, splits, batch, "float32")
    return {"config": config, "settings": segmentation_settings(config, VIT_SMALL, batch, GPU)}


def davis() -> dict[str, Any]:
    return {"settings": propagation_settings(PropagationSettings())}


PROTOCOLS = {"COCO: Mask R-CNN, ViT": coco, "ADE20K: Semantic FPN, ViT": ade20k, "DAVIS-2017: label propagation": davis}


def value_of(where: str, roots: dict[str, Any]) -> Any:
    root, _, path = where.partition(".")
    if root == "code":
        module, _, name = path.rpartition(".")
        return plain(getattr(importlib.import_module(module), name))
    return plain(lookup(roots[root], path))


def leaves(value: Any, path: str) -> Iterator[str]:
    """Paths of all single values below one, without those that are no constants."""
    items: Sequence[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = [(key, item) for key, item in value.items() if key not in NO_CONSTANTS]
    elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        items = list(enumerate(value))
    if not items:
        yield path
    for key, item in items:
        yield from leaves(item, f"{path}.{key}")


def test_every_table_is_of_a_protocol() -> None:
    assert list(tables()) == list(PROTOCOLS)


@pytest.mark.parametrize("heading", PROTOCOLS)
def test_the_document_states_what_runs(heading: str) -> None:
    roots = PROTOCOLS[heading]()
    rows = tables()[heading]
    assert {row.where: row.value for row in rows} == {row.where: value_of(row.where, roots) for row in rows}
    assert len({row.where for row in rows}) == len(rows)


@pytest.mark.parametrize("heading", PROTOCOLS)
def test_no_constant_that_runs_is_missing(heading: str) -> None:
    roots = PROTOCOLS[heading]()
    stated = [row.where for row in tables()[heading]]
    if "config" in roots:
        running = [
            leaf for part in COMPLETE for leaf in leaves(plain(lookup(roots["config"].to_dict(), part)), f"config.{part}")
        ]
    else:
        running = [f"settings.{name}" for name in roots["settings"]]
    assert not [leaf for leaf in running if not any(f"{leaf}.".startswith(f"{where}.") for where in stated)]
