"""DAVIS: masks that the authors' scripts (SelfPatch 81aef149, DINO 7c446df) wrote, and the official metrics.

Recordings with frames of real videos do not travel with the project. Without them, the plain loop of `tests/references` writes the
expected masks of generated sequences.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from backbones.build import AnyBackbone, build_backbone, network_of
from backbones.convert import Selection, open_backbone
from backbones.export import export_backbone
from backbones.spec import ViTSpec
from eval.davis.data import DavisSplit, find_sequences, sequence_names
from eval.propagation.features import FeatureExtractor
from eval.propagation.masks import read_mask, write_mask
from eval.propagation.measures import score_sequences
from eval.propagation.protocol import RULES, PropagationSettings
from eval.propagation.writing import write_sequence
from tests.references import davis_propagation as reference

LEAST_AGREEMENT = 0.9999
# Another valid value for each recorded one.
CHANGES: dict[str, Callable[[Any], Any]] = {
    "topk": lambda recorded: recorded - 1 or 2,
    "temperature": lambda recorded: 2 * recorded,
    "neighbourhood_radius": lambda recorded: recorded - 1 if recorded else 1,
    "n_last_frames": lambda recorded: 0 if recorded else 1,
    "protocol": lambda recorded: "fixed",
}


@pytest.fixture(scope="module")
def cases(golden_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = golden_dir / "davis_propagation"
    if not folder.is_dir():
        folder = generate_cases(tmp_path_factory.mktemp("davis_propagation"))
    found = sorted(path.parent for path in folder.glob("*/case.json"))
    assert found
    return found


def generate_cases(root: Path) -> Path:
    last = 4  # of the script's 7, so that fewer frames show that the oldest one is forgotten
    for layout, patch_size, frames in (("dino", 16, last + 3), ("selfpatch", 8, 3)):
        case, davis = root / f"{layout}_p{patch_size}", root / f"davis_{frames}"
        draw_video(davis, frames)
        with_cls = layout == "dino"
        spec = ViTSpec(
            embed_dim=96, depth=2, num_heads=3, patch_size=patch_size, image_size=224, class_token=with_cls, final_norm=with_cls
        )
        torch.manual_seed(patch_size)
        network = build_backbone(spec).eval()
        case.mkdir()
        export_backbone(case / "checkpoint.pth", layout, spec, network.state_dict(), epoch=0)
        options = {"format": layout, "num_heads": 3, "davis": davis.name}
        options |= {"n_last_frames": last, "size_mask_neighborhood": 12, "topk": 5}
        (case / "case.json").write_text(json.dumps(options))

        def patch_tokens(image: Tensor, network: AnyBackbone = network) -> Tensor:
            with torch.inference_mode():
                return network.forward_tokens(image[None]).patches[0]

        (sequence,) = find_sequences(DavisSplit(root=davis), all_masks=False)
        (case / "expected" / sequence.name).mkdir(parents=True)
        first = read_mask(sequence.masks[0])
        masks = (first, *reference.propagate_sequence(list(sequence.frames), first, patch_tokens, patch_size, last))
        for path, mask in zip(sequence.frames, masks, strict=True):
            write_mask(case / "expected" / sequence.name / f"{path.stem}.png", mask)
    return root


def draw_video(davis: Path, frames: int) -> None:
    """Three discs of their own colours over a smooth ground, each drifting and growing, one of them out of the frame."""
    height, width = 120, 136
    images, masks, lists = (davis / name for name in ("JPEGImages/480p/discs", "Annotations/480p/discs", "ImageSets/2017"))
    for folder in (images, masks, lists):
        folder.mkdir(parents=True)
    (lists / "val.txt").write_text("discs\n")
    generator = np.random.default_rng(frames)
    ground = cv2.resize(generator.integers(0, 256, (9, 16, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    for index in range(frames):
        image, mask = ground.copy(), np.zeros((height, width), np.uint8)
        for number, (x, y, step) in enumerate(((30, 40, 4), (80, 70, -3), (112, 60, 7)), start=1):
            place, radius = (x + step * index, y + 2 * index), 22 + index
            cv2.circle(image, place, radius, (80 * number, 255 - 70 * number, 40), -1)
            cv2.circle(mask, place, radius, number, -1)
        noisy = image + generator.normal(0, 12, image.shape)
        cv2.imwrite(str(images / f"{index:05d}.jpg"), noisy.clip(0, 255).astype(np.uint8))
        write_mask(masks / f"{index:05d}.png", mask)


def least_agreement(case: Path, output: Path, changed: str | None = None) -> float:
    """Smallest share of equal pixels over all frames of a case, with one setting changed."""
    options = json.loads((case / "case.json").read_text())
    conversion = open_backbone(case / "checkpoint.pth", Selection(num_heads=options["num_heads"]))
    assert conversion.source.format == options["format"]
    network = network_of(conversion.spec, conversion.state_dict)
    recorded: dict[str, Any] = {
        "n_last_frames": options["n_last_frames"],
        "neighbourhood_radius": options["size_mask_neighborhood"],
        "topk": options["topk"],
        "temperature": RULES["dino"].temperature,  # the scripts have no option for it
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


def test_masks(cases: list[Path], tmp_path: Path) -> None:
    for case in cases:
        assert least_agreement(case, tmp_path / case.name) >= LEAST_AGREEMENT, case.name


def a_case_disagrees(cases: list[Path], output: Path, changed: str | None = None) -> bool:
    return any(least_agreement(case, output / case.name, changed) < LEAST_AGREEMENT for case in reversed(cases))


@pytest.mark.parametrize("changed", CHANGES)
def test_wrong_settings_are_noticed(changed: str, cases: list[Path], tmp_path: Path) -> None:
    assert a_case_disagrees(cases, tmp_path, changed)


def test_the_training_deviation_is_noticed(cases: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "published", dataclasses.replace(RULES["published"], std=(0.229, 0.224, 0.225)))
    assert a_case_disagrees(cases, tmp_path)


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
