"""Label propagation by other protocols than DINO's: what dinov3 6876159 and CropMAE 5d0dab2 made of recorded features."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eval.propagation.features import input_size, read_frame
from eval.propagation.labels import channel_ids, compete, first_labels, to_mask
from eval.propagation.masks import Mask, PALETTE_256x3
from eval.propagation.propagator import LabelPropagator, penalties, propagate_labels
from eval.propagation.protocol import RULES, Rules

CPU = torch.device("cpu")
DINOV3, CROPMAE = RULES["dinov3"], RULES["cropmae"]


@pytest.fixture(scope="module")
def dinov3(golden_dir: Path) -> dict[str, Any]:
    return torch.load(golden_dir / "tracking/tracking_dinov3.pt", weights_only=True)


@pytest.fixture(scope="module")
def crw(golden_dir: Path) -> dict[str, Any]:
    return torch.load(golden_dir / "tracking/tracking_crw.pt", weights_only=True)


def cases_of(recording: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The recorded videos: those with features."""
    found = [(name, case) for name, case in recording.items() if isinstance(case, dict) and "feats" in case]
    assert found
    return iter(found)


def rules_of_dinov3(case: dict[str, Any]) -> Rules:
    names = {"max_context_length": "n_last_frames", "neighborhood_size": "neighbourhood_radius"}
    names |= {"neighborhood_shape": "neighbourhood", "topk": "topk", "temperature": "temperature", "short_side": "short_side"}
    return replace(DINOV3, **{ours: case[theirs] for theirs, ours in names.items()})


def rules_of_crw(case: dict[str, Any]) -> Rules:
    names = {"n_context": "n_last_frames", "radius": "neighbourhood_radius", "topk": "topk", "temperature": "temperature"}
    stretched_to = tuple(case["network_size"])
    return replace(CROPMAE, stretched_to=stretched_to, **{ours: case[theirs] for theirs, ours in names.items()})


def propagated(case: dict[str, Any], mask: Mask, size: tuple[int, int], rules: Rules) -> Tensor:
    """Labels [frames, h, w, C] of all frames from the recorded features."""
    features_FhwD = case["feats"]
    labels = [first_labels(mask, tuple(features_FhwD.shape[1:3]), size, rules)]
    propagator = LabelPropagator(features_FhwD[0], labels[0], rules)
    return torch.stack(labels + [propagator.step(features_hwD) for features_hwD in features_FhwD[1:]])


def drawn(labels_FhwC: Tensor, mask: Mask, size: tuple[int, int], mask_size: tuple[int, int], rules: Rules) -> Mask:
    ids, stride = channel_ids(mask, rules), size[0] // labels_FhwC.shape[1]
    masks = [to_mask(compete(labels, rules, stride, mask_size), rules, ids, size, mask_size) for labels in labels_FhwC]
    return np.stack(masks)


def within(h: int, w: int, rules: Rules) -> Tensor:
    """Which patches [h, w] can reach which [h, w]."""
    rows, columns = slice(0, h), slice(0, w)
    return penalties(rows, rows, columns, columns, rules, CPU) == 0


def as_read(case: dict[str, Any], size: tuple[int, int], rules: Rules, folder: Path) -> Tensor:
    path = folder / "frame.png"
    cv2.imwrite(str(path), cv2.cvtColor(case["frame0_uint8"].numpy(), cv2.COLOR_RGB2BGR))
    return read_frame(path, size, rules)


def test_dinov3(dinov3: dict[str, Any], tmp_path: Path) -> None:
    for name, case in cases_of(dinov3):
        rules, mask = rules_of_dinov3(case), case["first_mask"].numpy()
        size = input_size(*case["frame0_uint8"].shape[:2], rules, case["patch_size"])
        assert size == case["network_input0"].shape[1:], name
        torch.testing.assert_close(as_read(case, size, rules, tmp_path), case["network_input0"], atol=2e-5, rtol=0)
        torch.testing.assert_close(F.normalize(case["feats_raw"], dim=-1), case["feats"], atol=1e-5, rtol=0)
        labels = propagated(case, mask, size, rules)
        assert torch.equal(labels[0], case["first_probs"]), name
        torch.testing.assert_close(labels[1:], case["soft"], atol=1e-5, rtol=0)
        found = drawn(labels[1:], mask, size, mask.shape, rules)
        assert (found == case["mask_predictions"][1:].numpy()).all(), name


def test_sizes_of_dinov3(dinov3: dict[str, Any]) -> None:
    for rule in dinov3["resize_rule"]:
        rules = replace(DINOV3, short_side=rule["short_side"])
        assert input_size(rule["in_h"], rule["in_w"], rules, rule["patch"]) == (rule["out_h"], rule["out_w"]), rule


def test_neighbourhoods_of_dinov3(dinov3: dict[str, Any]) -> None:
    for found in dinov3["neighborhood_masks"]:
        rules = replace(DINOV3, neighbourhood_radius=found["size"], neighbourhood=found["shape"])
        assert torch.equal(within(found["h"], found["w"], rules), found["mask"])


def test_ties_of_dinov3_are_kept(dinov3: dict[str, Any]) -> None:
    ties = dinov3["ties"]
    h, w = ties["current_features"].shape[:2]
    candidates = (
        replace(DINOV3, neighbourhood_radius=radius, neighbourhood=shape, topk=ties["topk"], temperature=ties["temperature"])
        for radius in np.arange(0.5, h + w, 0.5)
        for shape in ("circle", "square")
    )
    rules = next(rules for rules in candidates if torch.equal(within(h, w, rules), ties["neighborhood_mask"]))
    given = ties["current_features"], ties["context_features"], ties["context_probs"]
    torch.testing.assert_close(propagate_labels(*given, rules), ties["out"], atol=1e-5, rtol=0)
    similarities = torch.einsum("hwd,tijd->hwtij", ties["current_features"], ties["context_features"])
    reached = similarities.masked_fill(~ties["neighborhood_mask"][:, :, None], -torch.inf).flatten(2)
    least = reached.topk(ties["topk"], dim=2).values[..., -1:]
    assert ((reached >= least).sum(2) > ties["topk"]).any()


def test_channels_without_contrast_of_dinov3_are_0(dinov3: dict[str, Any]) -> None:
    found = dinov3["postprocess"]
    for labels_Chw, wanted_CHW in zip(found["probs"], found["out"], strict=True):
        ids_HW = compete(labels_Chw.permute(1, 2, 0), DINOV3, 1, tuple(wanted_CHW.shape[1:]))
        assert torch.equal(ids_HW.long(), wanted_CHW.argmax(0))


def test_crw(crw: dict[str, Any], tmp_path: Path) -> None:
    for name, case in cases_of(crw):
        rules, mask, size = rules_of_crw(case), case["first_label_ids"].numpy(), tuple(case["network_size"])
        torch.testing.assert_close(as_read(case, size, rules, tmp_path), case["network_input0"], atol=1e-5, rtol=0)
        torch.testing.assert_close(F.normalize(case["tokens"][:, 1:], dim=-1), case["feats"].flatten(1, 2), atol=1e-5, rtol=0)
        # An object that is too thin for the network's size has a channel here, which stays empty, and none there.
        colours = PALETTE_256x3[channel_ids(mask, rules)][:, ::-1]
        shown = (colours[:, None] == case["label_set"].numpy()).all(2).any(1)
        assert (colours[shown] == case["label_set"].numpy()).all(), name
        assert torch.equal(within(*case["grid"], rules), case["radius_mask"]), name
        labels = propagated(case, mask, size, rules)
        assert not labels[..., ~shown].any(), name
        torch.testing.assert_close(labels[0][..., shown], case["first_label_soft"], atol=1e-6, rtol=0)
        # Twice as far where the temperature makes the softmax sharp.
        tolerance = 2e-5 if rules.temperature < CROPMAE.temperature else 1e-5
        torch.testing.assert_close(labels[..., shown], case["soft"], atol=tolerance, rtol=0)
        found = drawn(labels, mask, size, tuple(case["annotation_size"]), rules)
        assert (found == case["final_masks"].numpy()).all(), name


@pytest.mark.parametrize(
    "change",
    [
        lambda rules: {"first_frame_unlimited": False},
        lambda _: {"n_last_frames": 0},
        lambda rules: {"topk": rules.topk + 2},
        lambda rules: {"temperature": 2 * rules.temperature},
    ],
)
def test_another_rule_gives_other_labels(change: Callable[[Rules], dict[str, Any]], crw: dict[str, Any]) -> None:
    differences = []
    for _, case in cases_of(crw):
        rules, mask, size = rules_of_crw(case), case["first_label_ids"].numpy(), tuple(case["network_size"])
        labels, others = (propagated(case, mask, size, used) for used in (rules, replace(rules, **change(rules))))
        differences.append(float((others - labels).abs().max()))
    assert max(differences) > 1e-3
