"""Image retrieval from backbone and data to a result, and what is refused before anything runs."""

import dataclasses
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from backbones.spec import ResNetSpec, ViTSpec
from eval.__main__ import main
from eval.probes.features import fills_patch
from eval.probes.images import whole_patches
from eval.result import read_result
from eval.retrieval.config import RetrievalConfig
from eval.retrieval.data import SIZES, check_data, examine
from eval.retrieval.protocol import PUBLISHED, protocol_of, rules_of
from eval.retrieval.ranking import query_metrics, rank_images
from eval.retrieval.task import evaluate, read_input, scaled_inputs
from eval.tasks import BENCHMARKS
from tables.make import build_tables, render_tables
from tests.conftest import RunMain
from tests.eval.conftest import names_of_items
from tools.sample_data.formats import draw_photos
from tools.sample_data.whole_images import draw_landmarks

TRUTH = "gnd_roxford5k.pkl"


@pytest.fixture(scope="module")
def oxford(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("roxford5k")
    draw_landmarks(root, np.random.default_rng(0), "roxford5k", 2)
    return root


@pytest.fixture
def config(oxford: Path, toy_file: Path, tmp_path: Path) -> RetrievalConfig:
    return RetrievalConfig(
        backbone=toy_file, data=oxford, output=tmp_path / "runs/toy/retrieval", image_size=64, workers=0, device="cpu"
    )


def test_the_command_from_backbone_to_result(
    oxford: Path, config: RetrievalConfig, toy_file: Path, tmp_path: Path, run_main: RunMain
) -> None:
    places = ["--backbone", toy_file, "--data", oxford, "--output", config.output, "--device", "cpu", "--workers", 0]
    assert "mAP Hard" in run_main(main, ["retrieval", *places, "--image-size", 64, "--protocol", "ibot"]).output()
    result = read_result(config.output / "result.json")
    assert (result.protocol.name, result.coverage, result.datasets["test"].num_items) == ("revisited-ibot", "subset", 4)
    assert result.protocol.deviations == {"image_size": [512, 64]}
    columns = BENCHMARKS["retrieval_ibot"].columns
    assert {column.metric for column in columns} == set(result.metrics)
    assert 0 < result.metrics["mAP Medium"].value <= 100
    page = render_tables(build_tables(tmp_path / "runs"))
    assert f"{result.metrics['mAP Medium'].value:.1f}" in page["tables.md"]
    assert len(names_of_items(result, config.output, list(result.metrics))) == 4
    assert evaluate(dataclasses.replace(config, protocol="ibot")) == result  # finished, and only read


def test_distractors_are_ranked_in_blocks_and_never_right(config: RetrievalConfig, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    images, queries, others = (F.normalize(torch.randn(n, 8, generator=generator), dim=1) for n in (20, 5, 37))
    whole = rank_images(torch.cat([images, others]), queries)[:, :20]
    assert np.array_equal(rank_images(images, queries, others.split(10)), whole)
    assert np.array_equal(rank_images(images, queries, [images]).min(axis=1), np.zeros(5))  # of equals, images come first
    draw_photos(tmp_path / "photos", np.random.default_rng(1), 1)
    alone = evaluate(config)
    among = evaluate(dataclasses.replace(config, distractors=tmp_path / "photos", output=tmp_path / "among"))
    assert among.protocol.deviations["distractors"] == [0, 8]
    assert among.datasets["distractors"].num_items == 8
    assert among.metrics["mAP Hard"].value <= alone.metrics["mAP Hard"].value
    Image.new("L", (640, 9)).save(tmp_path / "photos/narrow.png")
    with pytest.raises(ValueError, match=r"photos: images are so small or narrow .* a patch: narrow\.png \(640 x 9\); remove"):
        evaluate(dataclasses.replace(config, distractors=tmp_path / "photos", output=tmp_path / "narrow"))
    with pytest.raises(ValueError, match=r"--distractors .*: no image in it"):
        evaluate(dataclasses.replace(config, distractors=tmp_path / "runs"))


def test_a_query_without_right_images_counts_for_no_mean() -> None:
    sorts = [{"easy": np.array([0]), "hard": np.array([], int), "junk": np.array([1])}]
    values = query_metrics(np.array([[2, 0, 1]]), sorts, (1, 5))
    assert values["mAP Easy"].tolist() == values["mAP Medium"].tolist() == [25.0]  # junk at rank 0 leaves its place
    assert values["mP@5 Easy"].tolist() == [50.0]  # the list ends at the last right image
    assert np.isnan(values["mAP Hard"]).all()


def test_defaults_are_the_published_protocols(config: RetrievalConfig, toy_spec: ViTSpec) -> None:
    default = RetrievalConfig(backbone=config.backbone, data=config.data, output=config.output)
    for (protocol, key), published in PUBLISHED.items():
        chosen = dataclasses.replace(default, protocol=protocol)
        assert rules_of(chosen, key, toy_spec, 0) == published
        assert protocol_of(chosen, key, published, toy_spec).deviations == {}
    single = rules_of(dataclasses.replace(default, protocol="ibot", multiscale=False), "rparis6k", toy_spec, 0)
    assert single.scales == (1.0,)
    assert SIZES == {"roxford5k": (4993, 70), "rparis6k": (6322, 70)}


def test_what_fills_no_patch_is_cut_off(toy_spec: ViTSpec) -> None:
    for size, fits in (((1024, 64), True), ((64, 1024), True), ((1024, 62), False), ((31, 40), False), ((32, 40), True)):
        assert fills_patch(size, 512, 0.5, toy_spec) == fits
        sizes = [image.shape[-2:] for image in scaled_inputs(read_input(Image.new("RGB", size), 512)[None], (1.0, 0.5))]
        assert (min(sizes[-1]) >= 16) == fits
    assert whole_patches(torch.zeros(1, 3, 41, 63), toy_spec).shape[-2:] == (32, 48)
    assert whole_patches(torch.zeros(1, 3, 41, 63), ResNetSpec(layers=(1, 1, 1, 1))).shape[-2:] == (41, 63)
    with pytest.raises(ValueError, match="40 x 15 pixels is smaller than a patch of 16"):
        whole_patches(torch.zeros(1, 3, 40, 15), toy_spec)


class Shell:
    def __reduce__(self) -> Any:
        return os.system, ("exit 3",)


def edited(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = pickle.loads((root / TRUTH).read_bytes())
    change(content)
    (root / TRUTH).write_bytes(pickle.dumps(content))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "query": (lambda root: next(root.glob("jpg/cat_*")).unlink(), "jpg lacks images that gnd_roxford5k.pkl names: cat_"),
    "box": (
        lambda root: edited(root, lambda c: c["gnd"][0].update(bbx=[9, 9, 900, 99])),
        "boxes outside of the queries' images",
    ),
    "turned": (lambda root: edited(root, lambda c: c["gnd"][0].update(bbx=[9, 9, 3, 99])), "bbx must be left, top, right"),
    "version": (
        lambda root: edited(root, lambda c: c["gnd"].__setitem__(1, {"ok": [0], "junk": [1], "bbx": [0, 0, 9, 9]})),
        r"gnd\[1\] \(cat_\d+\) has bbx, junk, ok, as in another version; the revisited one has bbx, easy, hard, junk",
    ),
    "place": (lambda root: edited(root, lambda c: c["gnd"][0].update(easy=[999])), "easy must be a list of places in imlist"),
    "twice": (lambda root: edited(root, lambda c: c["gnd"][0].update(easy=[1], junk=[1])), "an image twice among"),
    "count": (lambda root: edited(root, lambda c: c["qimlist"].pop()), "an entry for each name in qimlist"),
    "folder": (lambda root: edited(root, lambda c: c["imlist"].__setitem__(0, "../a")), "imlist '../a'"),
    "easy": (
        lambda root: edited(root, lambda c: [found.update(easy=[]) for found in c["gnd"]]),
        "no query has an image that is right at the level Easy",
    ),
    "content": (lambda root: (root / TRUTH).write_bytes(pickle.dumps([1])), "not a dictionary of gnd, imlist and qimlist"),
    "shell": (lambda root: (root / TRUTH).write_bytes(pickle.dumps(Shell())), "posix.system"),
    "cut": (lambda root: (root / TRUTH).write_bytes((root / TRUTH).read_bytes()[:-50]), TRUTH),
    "both": (lambda root: (root / "gnd_rparis6k.pkl").write_bytes(b""), "it has both"),
    "neither": (lambda root: (root / TRUTH).unlink(), "it has neither gnd_roxford5k.pkl or gnd_rparis6k.pkl"),
    "damaged": (lambda root: next(root.glob("jpg/cat_*")).write_bytes(b""), "files are empty"),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN)
def test_wrong_data_are_refused_in_one_line(damage: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    draw_landmarks(tmp_path, np.random.default_rng(0), "roxford5k", 1)
    assert [finding.kind for finding in examine(tmp_path, deep=True, jobs=1)] == ["subset", "subset"]
    damage(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        check_data(tmp_path)
    assert "\n" not in str(caught.value)
    assert any(finding.is_problem for finding in examine(tmp_path, deep=False, jobs=1))


def test_an_image_that_is_a_query_twice_is_one_file(tmp_path: Path) -> None:
    draw_landmarks(tmp_path, np.random.default_rng(0), "rparis6k", 1)
    content = pickle.loads((tmp_path / "gnd_rparis6k.pkl").read_bytes())
    content["qimlist"].append(content["qimlist"][0])
    content["gnd"].append({**content["gnd"][0], "bbx": np.array([0, 0, 20, 20])})
    (tmp_path / "gnd_rparis6k.pkl").write_bytes(pickle.dumps(content))
    found = check_data(tmp_path)
    assert len(set(found.query_items)) == 5
    assert found.describe().name == "Paris6k"
    assert Image.open(found.paths[-1]).size[0] > 20
