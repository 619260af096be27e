"""Copy detection from backbone and data to a result, and what is refused before anything runs."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from backbones.base import Tokens
from backbones.spec import ViTSpec
from eval.__main__ import main
from eval.copy_detection.config import CopyDetectionConfig
from eval.copy_detection.data import FURTHER_BLOCKS, check_data, examine
from eval.copy_detection.descriptors import descriptor, precisions
from eval.copy_detection.protocol import PUBLISHED, protocol_of, rules_of
from eval.copy_detection.task import evaluate
from eval.result import read_result
from tables.make import build_tables, render_tables
from tests.conftest import RunMain
from tests.eval.conftest import names_of_items
from tools.sample_data.formats import draw_photos
from tools.sample_data.whole_images import draw_copydays


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    draw_copydays(root / "copydays", np.random.default_rng(0), 3)
    draw_photos(root / "photos", np.random.default_rng(1), 1)
    return root


def test_the_command_from_backbone_to_result(folders: Path, toy_file: Path, tmp_path: Path, run_main: RunMain) -> None:
    output = tmp_path / "runs/toy/copy_detection"
    places = ["--backbone", toy_file, "--data", folders / "copydays", "--output", output, "--device", "cpu", "--workers", 0]
    further = ["--whitening", folders / "photos", "--distractors", folders / "photos"]
    assert "mAP strong" in run_main(main, ["copy_detection", *places, *further, "--image-size", 64]).output()
    result = read_result(output / "result.json")
    assert result.protocol.deviations == {"image_size": [320, 64], "whitening_images": [20_000, 8], "distractors": [10_000, 8]}
    assert list(result.metrics) == ["mAP strong", "mAP original", *(f"mAP {block}" for block in FURTHER_BLOCKS)]
    assert result.metrics["mAP original"].value == 1.0
    assert result.metrics["mAP jpegqual/75"].value > 0.9
    assert f"{result.metrics['mAP strong'].value:.3f}" in render_tables(build_tables(tmp_path / "runs"))["copydays.csv"]
    # Queries of other blocks would blur the test against a published figure.
    assert len(names_of_items(result, output, ["mAP strong"])) == 6
    config = CopyDetectionConfig(
        backbone=toy_file, data=folders / "copydays", output=tmp_path / "plain", image_size=64, workers=0, device="cpu"
    )
    plain = evaluate(config)
    assert plain.metrics["mAP strong"].value != result.metrics["mAP strong"].value
    assert plain.datasets.keys() == {"test"}
    with pytest.raises(ValueError, match=r"--whitening .*nowhere: no such folder"):
        evaluate(dataclasses.replace(config, whitening=tmp_path / "nowhere"))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/a.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"damaged: files are empty \(0 bytes\): a\.jpg; repair or remove them"):
        evaluate(dataclasses.replace(config, distractors=tmp_path / "damaged"))


def test_negative_patches_count_as_nothing_and_what_is_not_found_adds_nothing(toy_spec: ViTSpec) -> None:
    tokens = Tokens(torch.zeros(1, 2), torch.tensor([[[2.0, -3.0], [-5.0, -1.0]]]), (1, 2))
    found = descriptor(tokens, PUBLISHED)[0]
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, 2 * 0.5**0.25, 1e-6]))
    assert precisions(np.array([[3, 1], [0, 1]]), [[0], [1]]).tolist() == [0.0, 0.25]
    config = CopyDetectionConfig(backbone=Path("b"), data=Path("d"), output=Path("o"))
    assert rules_of(config, toy_spec, 20_000, 10_000) == PUBLISHED
    assert protocol_of(PUBLISHED, toy_spec).deviations == {}
    no_token = dataclasses.replace(toy_spec, class_token=False)
    assert "features" in protocol_of(rules_of(config, no_token, 20_000, 10_000), no_token).deviations


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "strong": (
        lambda root: (root / "strong").rename(root / "weak"),
        r"has no strong/\*\.jpg; .*; unpack https://.*/copydays_strong\.tar\.gz in strong$",
    ),
    "query": (
        lambda root: (root / "crops/50/200100.jpg").unlink(),
        r"crops/50 must have .* of the 2 originals, and has 1, without: 200100",
    ),
    "one more": (
        lambda root: (root / "crops/50/200199.jpg").write_bytes((root / "crops/50/200100.jpg").read_bytes()),
        r"and has 3; get http://.*/copydays_crop\.tar\.gz",
    ),
    "original": (
        lambda root: (root / "original/200100.jpg").unlink(),
        r"no original's name .*: strong/200101.jpg, strong/200102",
    ),
    "damaged": (
        lambda root: (root / "strong/200101.jpg").write_bytes(b"x"),
        "not images by their first bytes: strong/200101.jpg",
    ),
    "folder": (lambda root: root.rename(root.with_name("other")), r"has no original/\*\.jpg and no strong/\*\.jpg"),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN)
def test_wrong_data_are_refused_in_one_line(damage: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    root = tmp_path / "copydays"
    draw_copydays(root, np.random.default_rng(0), 2)
    assert {finding.kind for finding in examine(root, deep=True, jobs=1)} == {"subset"}
    damage(root)
    with pytest.raises(ValueError, match=message) as caught:
        check_data(root)
    assert "\n" not in str(caught.value)


def test_blocks_that_are_absent_have_no_metrics(tmp_path: Path) -> None:
    draw_copydays(tmp_path, np.random.default_rng(0), 2)
    (tmp_path / "crops").rename(tmp_path / "elsewhere")
    assert [block for block in check_data(tmp_path).blocks if block.startswith("crops")] == []
    notes = [finding for finding in examine(tmp_path, deep=False, jobs=1) if finding.kind == "note"]
    assert [len(finding.names) for finding in notes] == [9]
