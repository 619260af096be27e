"""Object discovery from backbone and data to a result, boxes of anybody, and what is refused before anything runs."""

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.build import build_backbone
from backbones.spec import DINOv3Spec, ResNetSpec, ViTSpec
from eval.__main__ import main
from eval.object_discovery import scores
from eval.object_discovery.config import ObjectDiscoveryConfig
from eval.object_discovery.data import check_data, examine
from eval.object_discovery.methods import find_box
from eval.object_discovery.protocol import PUBLISHED, check_backbone, protocol_of, rules_of
from eval.object_discovery.task import KeyExtractor, evaluate
from eval.probes.cache import FeatureStore
from eval.probes.images import fill_store
from eval.result import read_result
from tables.make import build_tables, render_tables
from tests.conftest import RunMain
from tests.eval.conftest import names_of_items
from tests.processes import evaluate_in_two
from tools.sample_data.whole_images import draw_coco20k, draw_voc2007


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("VOC2007")
    draw_voc2007(root, np.random.default_rng(0), 6)
    return root


@pytest.fixture
def config(voc: Path, toy_file: Path, tmp_path: Path) -> ObjectDiscoveryConfig:
    return ObjectDiscoveryConfig(backbone=toy_file, data=voc, output=tmp_path / "out", draw_images=1, workers=0, device="cpu")


@pytest.mark.parametrize("method", ["lost", "tokencut"])
def test_the_command_from_backbone_to_result(method: str, voc: Path, toy_file: Path, tmp_path: Path, run_main: RunMain) -> None:
    output = tmp_path / "runs/toy/object_discovery"
    places = ["--backbone", toy_file, "--data", voc, "--output", output, "--device", "cpu", "--workers", 0]
    assert "CorLoc" in run_main(main, ["object_discovery", *places, "--method", method, "--draw-images", 2]).output()
    result = read_result(output / "result.json")
    assert (result.protocol.name, result.protocol.deviations) == (f"object-discovery-{method}", {})
    assert (result.datasets["test"].name, result.coverage) == ("PASCAL VOC 2007", "subset")
    drawn = [path for name, path in result.artefacts.items() if name.startswith("prediction on 0000")]
    assert len(drawn) == 2
    assert (np.asarray(Image.open(output / drawn[0])) == (255, 0, 0)).all(axis=2).any()
    assert len(names_of_items(result, output, ["CorLoc"])) == 6
    assert f"object-discovery-{method}" in render_tables(build_tables(tmp_path / "runs"))["tables.md"]
    # Anybody's boxes are scored alike.
    printed = run_main(scores.main, ["--data", voc, "--boxes", output / "boxes.json"]).output()
    assert printed.startswith(f"CorLoc {result.metrics['CorLoc'].value:.2f} ")


def test_an_interrupted_run_keeps_its_boxes(config: ObjectDiscoveryConfig) -> None:
    result = evaluate(config)
    (config.output / "result.json").unlink()
    (parts,) = (config.output / "parts").glob("*/*.npy")
    before = parts.stat().st_mtime_ns
    assert evaluate(config).metrics == result.metrics
    assert parts.stat().st_mtime_ns == before


@pytest.mark.long
def test_two_processes_give_what_one_gives(config: ObjectDiscoveryConfig, tmp_path: Path) -> None:
    two = dataclasses.replace(config, output=tmp_path / "two", workers=1)
    evaluate_in_two("eval.object_discovery.task", two, tmp_path / "processes")
    assert read_result(two.output / "result.json").metrics == evaluate(config).metrics


def test_every_process_fills_its_share_of_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FeatureStore(tmp_path, {}, 7, (1,), rows_per_file=2)
    made: list[int] = []

    def make(index: int) -> Any:
        made.append(index)
        return np.array([index])

    monkeypatch.setattr("eval.probes.images.world_size", lambda: 2)
    for place, indices in ((1, [2, 3, 6]), (0, [0, 1, 4, 5])):
        monkeypatch.setattr("eval.probes.images.rank", lambda place=place: place)
        with contextlib.suppress(ValueError):  # before the other process has made its share
            fill_store(store, int, make, 8, 0, torch.device("cpu"))
        assert made == indices
        made.clear()
    assert store.rows(torch.arange(7)).flatten().tolist() == list(range(7))


def test_keys_are_those_of_the_last_block_and_other_networks_are_refused(toy_spec: ViTSpec) -> None:
    network: Any = build_backbone(toy_spec)
    images = torch.randn(1, 3, 32, 48)
    seen: list[torch.Tensor] = []
    network.blocks[-1].attn.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    keys, grid = KeyExtractor(network, torch.device("cpu"))(images)
    width, layer = toy_spec.embed_dim, network.blocks[-1].attn.qkv
    with torch.inference_mode():
        wanted = seen[0][0, 1:] @ layer.weight[width : 2 * width].T + layer.bias[width : 2 * width]
    torch.testing.assert_close(keys, wanted)
    assert grid == (2, 3)
    for spec in (
        ResNetSpec(layers=(1, 1, 1, 1)),
        DINOv3Spec(embed_dim=64, depth=2, num_heads=1, patch_size=16, hidden_dim=128, register_tokens=0),
    ):
        with pytest.raises(ValueError, match=r"takes the keys of a ViT's last block, which .* has not"):
            check_backbone(spec)


def test_both_methods_find_the_patches_that_differ() -> None:
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(6, 8, 16, generator=generator) * 0.1
    keys[..., 0] += 1
    keys[2:4, 3:6, 0] -= 2
    for rules in PUBLISHED.values():
        box = find_box(keys.reshape(48, 16), (6, 8), 16, (90, 128), rules)
        assert box.tolist() == [48, 32, 96, 64]


def test_defaults_are_published_and_hard_objects_can_be_left_out(config: ObjectDiscoveryConfig) -> None:
    for method, rules in PUBLISHED.items():
        default = dataclasses.replace(config, method=method)
        assert rules_of(default) == rules
        assert protocol_of(default).deviations == {}
    easier = dataclasses.replace(config, no_hard=True)
    assert protocol_of(easier).deviations == {"hard_objects": [True, False]}
    counts = [sum(len(image.boxes) for image in check_data(config.data, no_hard).images.values()) for no_hard in (False, True)]
    assert counts[0] > counts[1] > 0
    assert check_data(config.data, no_hard=True).describe().coverage == "subset"


def test_published_boxes_are_read(golden_dir: Path, voc: Path, tmp_path: Path) -> None:
    """LOST's own of all 5,011 images of VOC 2007, against annotations that are these boxes."""
    published = golden_dir / "tracking/lost_voc07_published_boxes.json"
    if not published.is_file():
        pytest.skip(f"no {published}")
    content = json.loads(published.read_text(encoding="utf-8"))
    names = list(content["boxes"])[:20]
    for place in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tmp_path / place).mkdir(parents=True)
    template = next((voc / "Annotations").glob("*.xml")).read_text(encoding="utf-8").partition("<bndbox>")[0]
    template = re.sub(r"<size>.*</size>", "", template)
    for number, name in enumerate(names):
        left, top, right, bottom = content["boxes"][name]
        shift = right - left if number == 0 else 0  # a box that touches no object
        ends = {"xmin": left + 1 + shift, "ymin": top + 1, "xmax": right + shift, "ymax": bottom}
        inner = "".join(f"<{end}>{value}</{end}>" for end, value in ends.items())
        xml = f"{template}<bndbox>{inner}</bndbox></object></annotation>"
        (tmp_path / f"Annotations/{Path(name).stem}.xml").write_text(xml, encoding="utf-8")
        Image.new("L", (max(ends["xmax"], 1), max(bottom, 1))).save(tmp_path / "JPEGImages" / name)
    (tmp_path / "ImageSets/Main/trainval.txt").write_text("\n".join(Path(name).stem for name in names))
    assert scores.score(scores.ScoresConfig(data=tmp_path, boxes=published)) == (len(names) - 1, len(names))


def annotated(root: Path, change: Callable[[str], str]) -> None:
    path = root / "Annotations/000001.xml"
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "image": (lambda root: (root / "JPEGImages/000002.jpg").unlink(), r"lacks images .*: 000002\.jpg"),
    "annotation": (
        lambda root: (root / "Annotations/000002.xml").unlink(),
        r"no usable annotation: 000002\.jpg \(No such file",
    ),
    "outside": (
        lambda root: annotated(root, lambda text: text.replace("<xmax>", "<xmax>9", 1)),
        r"boxes end outside of their images: 000001\.jpg",
    ),
    "turned": (
        lambda root: annotated(root, lambda text: text.replace("<xmin>", "<xmin>900", 1)),
        "a box ends before it begins",
    ),
    "words": (
        lambda root: annotated(root, lambda text: text.replace("<ymin>", "<ymin>a", 1)),
        r"object has \d+, a\d+, .* for bndbox/xmin, bndbox/ymin",
    ),
    "no box": (lambda root: annotated(root, lambda text: text.replace("bndbox", "box")), "object has nothing, nothing"),
    "huge": (lambda root: annotated(root, lambda text: text.replace("<xmax>", "<xmax>1e300")), "000001.jpg"),
    "size": (
        lambda root: annotated(root, lambda text: text.replace("<width>", "<width>9")),
        r"differ in size from their annotations: JPEGImages/000001\.jpg \(\d+ x \d+ instead of 9\d+ x \d+\)",
    ),
    "no size": (
        lambda root: annotated(root, lambda text: text.replace("<height>", "<height>x")),
        r"has \d+, x\d+ for size/width",
    ),
    "bomb": (
        lambda root: annotated(root, lambda text: f"<!DOCTYPE annotation [<!ENTITY a 'aa'>]>{text}"),
        r"000001\.jpg \(it declares a document type; refused\)",
    ),
    "page": (lambda root: annotated(root, lambda _: "<html></html>"), "of another kind, <html>"),
    "list": (lambda root: (root / "ImageSets/Main/trainval.txt").write_text("../000001\n"), r"\.\./000001"),
    "empty": (lambda root: (root / "ImageSets/Main/trainval.txt").write_text(""), "must name at least one image, none twice"),
    "no list": (lambda root: (root / "ImageSets/Main/trainval.txt").unlink(), "neither ImageSets/Main/trainval.txt nor"),
    "damaged": (lambda root: (root / "JPEGImages/000001.jpg").write_bytes(b""), "files are empty"),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN)
def test_wrong_data_are_refused_in_one_line(damage: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    draw_voc2007(tmp_path, np.random.default_rng(0), 2)
    assert [finding.kind for finding in examine(tmp_path, deep=True, jobs=1)] == ["subset"]
    damage(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        check_data(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["annotations"][0].update(bbox=[0, 0, 900, 9]), "boxes end outside of their images"),
        (lambda content: content["annotations"][0].update(bbox=[0, 0, float("nan"), 9]), "not an annotation file of COCO"),
        (lambda content: content["images"][0].update(width=9), "differ in size from their annotations"),
        (lambda content: content["images"].pop(), "not in instances_train2014.json, which is of another version"),
        (lambda content: content.pop("annotations"), "not an annotation file of COCO"),
    ],
)
def test_wrong_annotations_of_coco_are_refused(change: Callable[[Any], object], message: str, tmp_path: Path) -> None:
    draw_coco20k(tmp_path, np.random.default_rng(0), 2)
    assert check_data(tmp_path).describe().name == "COCO 20k"
    with pytest.raises(ValueError, match="only PASCAL VOC says"):
        check_data(tmp_path, no_hard=True)
    path = tmp_path / "annotations/instances_train2014.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    content["annotations"] = [one for one in content.get("annotations", []) if one["image_id"] == 1] or None
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        check_data(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "not a JSON file with `boxes`"),
        ('{"boxes": {}}', r"no box for 000001\.jpg, 000002\.jpg"),
        ("{", "not a JSON file"),
        (json.dumps({"boxes": [f"{number:06}.jpg" for number in range(1, 7)]}), "not a JSON file with `boxes`"),
        (json.dumps({"boxes": {f"{number:06}.jpg": [9, 9, 3, 20] for number in range(1, 7)}}), "a box ends before it begins"),
    ],
)
def test_files_of_boxes_are_checked(content: str, message: str, voc: Path, tmp_path: Path, run_main: RunMain) -> None:
    (tmp_path / "boxes.json").write_text(content, encoding="utf-8")
    assert run_main(scores.main, ["--data", voc, "--boxes", tmp_path / "boxes.json"]).mistake().startswith("error: ")
    with pytest.raises(ValueError, match=message):
        scores.score(scores.ScoresConfig(data=voc, boxes=tmp_path / "boxes.json"))
