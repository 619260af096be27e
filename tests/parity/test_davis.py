"""DAVIS: masks that the authors' scripts (SelfPatch 81aef149, DINO 7c446df) wrote, and the official metrics."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backbones.build import build_backbone
from backbones.convert import open_backbone
from backbones.file import load_strictly
from eval.davis import protocol
from eval.davis.data import DavisSplit, find_sequences, sequence_names
from eval.davis.features import FeatureExtractor
from eval.davis.masks import read_mask
from eval.davis.protocol import PropagationSettings
from eval.davis.scores import score_sequences
from eval.davis.writing import write_sequence

LEAST_AGREEMENT = 0.9999
# Another valid value for each recorded one.
CHANGES: dict[str, Callable[[Any], Any]] = {
    "topk": lambda recorded: recorded - 1 or 2,
    "temperature": lambda recorded: 2 * recorded,
    "neighbourhood_radius": lambda recorded: recorded - 1 if recorded else 1,
    "n_last_frames": lambda recorded: 0 if recorded else 1,
    "protocol": lambda recorded: "fixed",
}


def cases(golden_dir: Path) -> list[Path]:
    folders = sorted(path.parent for path in golden_dir.glob("davis_propagation/*/case.json"))
    assert folders
    return folders


def least_agreement(case: Path, output: Path, changed: str | None = None) -> float:
    """Smallest share of equal pixels over all frames of a case, with one setting changed."""
    options = json.loads((case / "case.json").read_text())
    conversion = open_backbone(case / "checkpoint.pth", num_heads=options["num_heads"])
    assert conversion.layout == options["format"]
    network = build_backbone(conversion.spec)
    load_strictly(network, conversion.state_dict)
    recorded: dict[str, Any] = {
        "n_last_frames": options["n_last_frames"],
        "neighbourhood_radius": options["size_mask_neighborhood"],
        "topk": options["topk"],
        "temperature": PropagationSettings().temperature,  # the scripts have no option for it
        "protocol": "published",
    }
    if changed:
        recorded[changed] = CHANGES[changed](recorded[changed])
    settings = PropagationSettings(**recorded)
    extract = FeatureExtractor(network, settings.block, torch.device("cpu"))
    agreements = []
    for sequence in find_sequences(DavisSplit(root=case.parent / options["davis"]), all_masks=False):
        write_sequence(sequence, output / sequence.name, extract, settings, lambda: None)
        expected = sorted((case / "expected" / sequence.name).glob("*.png"))
        assert [path.stem for path in expected] == [path.stem for path in sequence.frames]
        for path in expected:
            wanted, found = read_mask(path), read_mask(output / sequence.name / path.name)
            assert wanted.shape == found.shape
            agreements.append(float(np.mean(wanted == found)))
    return min(agreements)


def test_masks(golden_dir: Path, tmp_path: Path) -> None:
    for case in cases(golden_dir):
        assert least_agreement(case, tmp_path / case.name) >= LEAST_AGREEMENT, case.name


def a_case_disagrees(golden_dir: Path, output: Path, changed: str | None = None) -> bool:
    return any(least_agreement(case, output / case.name, changed) < LEAST_AGREEMENT for case in reversed(cases(golden_dir)))


@pytest.mark.parametrize("changed", CHANGES)
def test_wrong_settings_are_noticed(changed: str, golden_dir: Path, tmp_path: Path) -> None:
    assert a_case_disagrees(golden_dir, tmp_path, changed)


def test_the_training_deviation_is_noticed(golden_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "PUBLISHED", dataclasses.replace(protocol.PUBLISHED, std=(0.229, 0.224, 0.225)))
    assert a_case_disagrees(golden_dir, tmp_path)


def test_metrics_of_the_split_and_of_every_object(golden_dir: Path) -> None:
    """Of the official evaluation (davis2017-evaluation)."""
    folder = golden_dir / "davis_scores"
    split = DavisSplit(root=folder / "DAVIS")
    scores = score_sequences(sequence_names(split), split.masks_folder, folder / "predictions")
    expected = json.loads((folder / "expected.json").read_text())
    assert scores.overall == pytest.approx(expected["global"], rel=0, abs=1e-9)
    assert set(scores.per_object) == set(expected["per_object"])
    for name, metrics in expected["per_object"].items():
        found = scores.per_object[name]
        wanted = {"J-Mean": metrics["J"], "F-Mean": metrics["F"]}
        assert {metric: found[metric] for metric in wanted} == pytest.approx(wanted, rel=0, abs=1e-9), name
