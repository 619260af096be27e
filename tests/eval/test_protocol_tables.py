"""docs/protocols.md against what runs: every value that it states, and no constant that it leaves out."""

import dataclasses
import importlib
import json
import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch

import eval.openmmlab.operators  # noqa: F401 - before anything of mmdet is imported
from backbones.spec import BackboneSpec
from eval.copy_detection.protocol import PUBLISHED as COPY_DETECTION
from eval.depth.protocol import PUBLISHED as DEPTH
from eval.detection import protocol as detection
from eval.detection.config import DetectionConfig
from eval.detection.protocol import protocol_settings as detection_settings
from eval.jhmdb import protocol as jhmdb
from eval.linear_segmentation.protocol import RULES
from eval.object_discovery.protocol import PUBLISHED as OBJECT_DISCOVERY
from eval.openmmlab.config import lookup, plain
from eval.probes.data import Split
from eval.probes.sets import ADE20K
from eval.propagation.features import input_size
from eval.propagation.protocol import PropagationSettings, deviations, propagation_settings, settings_of
from eval.retrieval.protocol import PUBLISHED as LANDMARKS
from eval.retrieval_segmentation.protocol import PUBLISHED as RETRIEVAL
from eval.segmentation import protocol as segmentation
from eval.segmentation.config import Head, SegmentationConfig
from eval.segmentation.protocol import protocol_settings as segmentation_settings
from eval.vip import protocol as vip
from tests.eval.rows import ROWS, VIT_SMALL, full_coco

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "protocols.md"
COLUMNS = ["Constant", "Value", "Where", "Source", "Where sources and we differ"]
VIT_OF_14 = dataclasses.replace(VIT_SMALL, patch_size=14)
BACKBONES = {"ViT": VIT_SMALL, "Swin-T": ROWS["Swin-T"], "ResNet-50": ROWS["ResNet-50"], "ViT-S/14": VIT_OF_14}
ROUNDED_UP = PropagationSettings(round_up=True)
GPU = torch.device("cuda")
PATHS: dict[str, Any] = {"backbone": Path("b.safetensors"), "data": Path("d"), "output": Path("o")}

# Parts of a resolved config all of whose values must be in the table; of label propagation, all settings.
COMPLETE = (
    *("model", "optim_wrapper", "param_scheduler", "train_cfg"),
    *("train_dataloader.batch_size", "train_dataloader.dataset.pipeline", "test_dataloader.dataset.pipeline"),
)
# Names in there that are no constants of a protocol.
NO_CONSTANTS = {"_scope_", "backbone_file", "compile", "val_interval"}


def tables() -> dict[str, list[tuple[str, Any]]]:
    """The rows under each heading that has a table of constants: where a value is, and what it is."""
    found: dict[str, list[tuple[str, Any]]] = {}
    for section in DOCUMENT.read_text(encoding="utf-8").split("\n## ")[1:]:
        heading, *lines = section.splitlines()
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
        if cells:
            assert cells[0] == COLUMNS, heading
            found[heading] = [_row(*row) for row in cells[2:]]
    return found


def _row(constant: str, value: str, where: str, source: str, difference: str) -> tuple[str, Any]:
    assert re.fullmatch(r"`.+`", value), f"{constant}: {value} is not JSON in backticks"
    assert re.fullmatch(r"`(config|settings|code)\.\S+`", where), f"{constant}: {where}"
    assert source, f"{constant} has no source"
    return where.strip("`"), json.loads(value.strip("`"))


@cache
def coco(spec: BackboneSpec) -> dict[str, Any]:
    config = detection.resolve(DetectionConfig(**PATHS, precision="float32"), spec, full_coco(), GPU, 8)[0]
    return {"config": config, "settings": detection_settings(spec, config, GPU)}


@cache
def ade20k(spec: BackboneSpec, head: Head = "fpn") -> dict[str, Any]:
    splits = {
        name: Split(
            root=Path("ade"),
            of=ADE20K,
            name=name,
            pairs=dict.fromkeys(map(str, range(size)), (Path(), Path())),
            restricted=False,
        )
        for name, size in ADE20K.sizes.items()
    }
    base = segmentation.base_config(spec, head)
    config = segmentation.resolve(SegmentationConfig(**PATHS, head=head), spec, splits, GPU, base.batch.world_size)[0]
    return {"config": config, "settings": segmentation_settings(spec, config, GPU)}


def settings(rules: Any, of: Callable[[Any], dict[str, Any]] = dataclasses.asdict) -> dict[str, Any]:
    return {"settings": plain(of(rules))}


def propagation(**changes: Any) -> dict[str, Any]:
    return settings(PropagationSettings(**changes), propagation_settings)


# What runs, by the heading of its table: where values are looked up, by the first part of their path.
PROTOCOLS: dict[str, Callable[[], dict[str, Any]]] = {
    **{f"COCO: Mask R-CNN, {name}": partial(coco, spec) for name, spec in BACKBONES.items()},
    **{f"ADE20K: Semantic FPN, {name}": partial(ade20k, spec) for name, spec in BACKBONES.items()},
    "ADE20K: UperNet, ViT": partial(ade20k, VIT_SMALL, "upernet"),
    "DAVIS-2017: label propagation": propagation,
    "DAVIS-2017: label propagation, `--round-up true`": partial(propagation, round_up=True),
    "Label propagation by DINOv3's protocol": partial(propagation, protocol="dinov3"),
    "Label propagation by CropMAE's protocol": partial(propagation, protocol="cropmae"),
    "Label propagation by videowalk's protocol": partial(propagation, protocol="crw"),
    **{f"VIP: {name}": partial(settings, rules, settings_of) for name, rules in vip.PUBLISHED.items()},
    **{f"JHMDB: {name}": partial(settings, rules, settings_of) for name, rules in jhmdb.PUBLISHED.items()},
    **{f"Linear segmentation: {name}": partial(settings, rules) for name, rules in RULES.items()},
    "NYU depth: dinov3": partial(settings, DEPTH),
    **{f"Dense retrieval: {name}": partial(settings, rules) for name, rules in RETRIEVAL.items()},
    **{f"Image retrieval: {name} on {key}": partial(settings, rules) for (name, key), rules in LANDMARKS.items()},
    "Copy detection: dino": partial(settings, COPY_DETECTION),
    **{f"Object discovery: {name}": partial(settings, rules) for name, rules in OBJECT_DISCOVERY.items()},
}


def value_of(where: str, roots: dict[str, Any]) -> Any:
    root, _, path = where.partition(".")
    if root == "code":
        module, _, name = path.rpartition(".")
        return plain(getattr(importlib.import_module(module), name))
    return _constants(plain(lookup(roots[root], path)))


def _constants(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _constants(item) for key, item in value.items() if key not in NO_CONSTANTS}
    return [_constants(item) for item in value] if isinstance(value, list) else value


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """All single values below one with their paths."""
    items: dict[Any, Any] = value if isinstance(value, dict) else {}
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        items = dict(enumerate(value))
    if not items:
        yield path, value
    for key, item in items.items():
        yield from leaves(item, f"{path}.{key}")


def running(heading: str) -> dict[str, Any]:
    """Every constant that runs: path -> value."""
    roots = PROTOCOLS[heading]()
    parts = [f"config.{part}" for part in COMPLETE] if "config" in roots else [f"settings.{name}" for name in roots["settings"]]
    return {path: value for part in parts for path, value in leaves(value_of(part, roots), part)}


def test_every_table_is_of_a_protocol() -> None:
    assert list(tables()) == list(PROTOCOLS)


@pytest.mark.parametrize("heading", PROTOCOLS)
def test_the_document_states_what_runs_and_leaves_no_constant_out(heading: str) -> None:
    roots, rows = PROTOCOLS[heading](), tables()[heading]
    stated = dict(rows)
    assert stated == {where: value_of(where, roots) for where, _ in rows}
    assert len(stated) == len(rows)
    # The first table of a benchmark is complete; the others state what differs from it.
    benchmark, absent = heading.partition(":")[0], object()
    whole = next(other for other in PROTOCOLS if other.startswith(benchmark))
    found, usual = running(heading), {} if heading == whole else running(whole)
    wanted = [path for path in {**usual, **found} if usual.get(path, absent) != found.get(path, absent)]
    assert wanted
    # What is gone is covered by the row of what it was a part of.
    assert not [path for path in wanted if not any(f"{path}.".startswith(f"{where}.") for where in stated)]


def test_what_does_not_fit_patches_of_14_pixels_is_a_deviation() -> None:
    assert deviations(ROUNDED_UP) == {"long_side_multiple": [64, None], "round_up": [None, True]}
    assert input_size(480, 854, ROUNDED_UP.rules, 14) == (490, 854)  # as the document says
    for changed, usual in ((coco(VIT_OF_14), coco(VIT_SMALL)), (ade20k(VIT_OF_14), ade20k(VIT_SMALL))):
        assert "strides" not in usual["config"].model.backbone
        assert changed["config"].model.backbone.strides == [16] * 4
