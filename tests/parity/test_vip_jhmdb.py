"""VIP and JHMDB: labels, joints and metrics that the programs of videowalk 047f3f4 and CropMAE 5d0dab2 made."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from eval.jhmdb import joints
from eval.jhmdb import protocol as jhmdb
from eval.jhmdb.items import pck
from eval.probes.matching import class_pixels
from eval.probes.pixels import compute_metrics
from eval.propagation.features import read_frame
from eval.propagation.labels import to_mask
from eval.propagation.propagator import LabelPropagator
from eval.propagation.protocol import Rules
from eval.vip import protocol as vip
from eval.vip.masks import part_labels
from eval.vip.metric import frame_confusion

Case = dict[str, Any]


@pytest.fixture(scope="module")
def recording(golden_dir: Path) -> dict[str, Any]:
    return torch.load(golden_dir / "tracking/tracking_vip_jhmdb.pt", weights_only=True)


@pytest.fixture(scope="module")
def pck_cases(golden_dir: Path) -> list[dict[str, Any]]:
    return torch.load(golden_dir / "tracking/jhmdb_pck.pt", weights_only=True)["cases"]


def of_kind(recording: dict[str, Any], kind: str) -> list[Case]:
    """The recorded videos of a data set."""
    found = [case for case in recording.values() if isinstance(case, dict) and case.get("kind") == kind]
    assert found, kind
    return found


def test_vip_counts_all_frames_together(golden_dir: Path) -> None:
    recorded = torch.load(golden_dir / "tracking/vip_miou.pt", weights_only=True)
    frames = [frame for video in recorded["videos"] for frame in video["frames"]]
    total = sum(frame_confusion(frame["gt"].numpy(), frame["pred"].numpy()) for frame in frames)
    assert np.array_equal(total, recorded["hist"].numpy())
    metrics, per_class = compute_metrics(torch.from_numpy(class_pixels(total)))
    assert metrics["mIoU"] / 100 == pytest.approx(recorded["miou"], rel=0, abs=1e-12)
    assert metrics["mAcc"] / 100 == pytest.approx(recorded["mean_accuracy"], rel=0, abs=1e-9)
    assert metrics["aAcc"] / 100 == pytest.approx(recorded["overall_accuracy"], rel=0, abs=1e-9)
    iou = np.array([values["IoU"] for values in per_class]) / 100
    np.testing.assert_allclose(iou, recorded["iou_per_class"].numpy(), rtol=0, atol=1e-12)


def test_a_joint_is_drawn_where_the_published_program_draws_it(recording: dict[str, Any]) -> None:
    for case in recording["heatmaps"]:
        drawn_hwC = joints.joint_labels(np.array([[case["x"]], [case["y"]]]), tuple(case["map"].shape))
        torch.testing.assert_close(drawn_hwC[..., 1], case["map"].float(), rtol=0, atol=1e-6)
        assert torch.equal(drawn_hwC[..., 0], (case["map"] == 0).float())


def test_first_labels_of_joints(recording: dict[str, Any]) -> None:
    for case in of_kind(recording, "jhmdb"):
        height, width = case["frame0_uint8"].shape[:2]
        scale = np.array([case["network_size"][1] / width, case["network_size"][0] / height]) / case["patch_size"]
        places_2J = (case["pos_img"].numpy()[:, :, 0] - 1) * scale[:, None]
        drawn = joints.joint_labels(places_2J, tuple(case["grid"]))
        torch.testing.assert_close(drawn, case["first_label_soft"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("cells", ["coords", "coords_videowalk_top3"])
def test_joints_from_labels(recording: dict[str, Any], cells: str) -> None:
    compared = 0
    for case in of_kind(recording, "jhmdb"):
        count = case["coords_topk"] if cells == "coords" else 3
        found_2JT = torch.stack([joints.joint_places(soft_hwC, count) for soft_hwC in case["soft"]], dim=2).numpy()
        defined = np.broadcast_to(case[f"{cells}_well_defined"].numpy(), found_2JT.shape)
        np.testing.assert_allclose(found_2JT[defined], case[cells].numpy()[defined], rtol=0, atol=1e-4)
        compared += defined.sum()
    assert compared


def test_joints_from_labels_of_other_grids(recording: dict[str, Any]) -> None:
    for case in recording["pose_decoding"]:
        for name in case.keys() - {"maps"}:
            found = joints.joint_places(case["maps"], int(name.removeprefix("coords_top")))
            torch.testing.assert_close(found, case[name], rtol=0, atol=1e-4, check_dtype=False)


def test_pck(pck_cases: list[dict[str, Any]]) -> None:
    for case in pck_cases:
        distances = []
        for video in case["videos"]:
            size, grid = (video["height"], video["width"]), (case["feat_res"], case["feat_res"])
            found = joints.in_pixels(video["pred"].numpy(), size, grid)
            distances.append(joints.joint_distances(video["pos_img"].numpy() - 1, found))
        for joint, recorded in enumerate(case["distances"]):
            pooled = np.concatenate([of_video[joint] for of_video in distances])
            np.testing.assert_allclose(pooled[~np.isnan(pooled)], recorded.numpy(), rtol=1e-6)
        right, counted = zip(*(joints.count_right(found, case["thresholds"]) for found in distances), strict=True)
        assert sum(counted).tolist() == list(case["counted"])
        with np.errstate(invalid="ignore"):  # a joint that no video shows has no share
            shares = 100 * sum(right) / sum(counted)
        np.testing.assert_allclose(shares, case["pck_per_joint"].numpy(), rtol=0, atol=1e-9)
        found = pck(sum(right)[None], sum(counted)[None])[0]
        np.testing.assert_allclose(found, case["pck_mean"], rtol=0, atol=1e-9)


def rules_of(case: dict[str, Any], published: Rules) -> Rules:
    return dataclasses.replace(
        published,
        n_last_frames=case["n_context"],
        neighbourhood_radius=case["radius"],
        topk=case["topk"],
        temperature=case["temperature"],
        stretched_to=tuple(case["network_size"]),
    )


def carried(case: dict[str, Any], labels_hwC: torch.Tensor, rules: Rules) -> torch.Tensor:
    propagator = LabelPropagator(case["feats"][0], labels_hwC, rules)
    return torch.stack([labels_hwC, *(propagator.step(features_hwD) for features_hwD in case["feats"][1:])])


def test_the_masks_of_vip_videos(recording: dict[str, Any]) -> None:
    for case in of_kind(recording, "vip"):
        rules, size = rules_of(case, vip.PUBLISHED["cropmae"].propagation), tuple(case["network_size"])
        labels_hwC, classes = part_labels(case["first_label_ids"].numpy(), tuple(case["grid"]), size, rules)
        assert classes.tolist() == case["label_set"][:, 0].tolist()
        torch.testing.assert_close(labels_hwC, case["first_label_soft"], rtol=0, atol=1e-6)
        soft = carried(case, labels_hwC, rules)
        torch.testing.assert_close(soft, case["soft"], rtol=0, atol=1e-5)
        for labels, mask in zip(soft, case["final_masks"], strict=True):
            assert np.array_equal(to_mask(labels, rules, classes, size, size), mask.numpy())


def test_the_labels_of_jhmdb_videos(recording: dict[str, Any]) -> None:
    for case in of_kind(recording, "jhmdb"):
        rules = rules_of(case, jhmdb.PUBLISHED["cropmae"].propagation)
        torch.testing.assert_close(carried(case, case["first_label_soft"], rules), case["soft"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["vip", "jhmdb"])
def test_frames_as_the_network_sees_them(recording: dict[str, Any], kind: str, tmp_path: Path) -> None:
    for case in of_kind(recording, kind):
        frame = case["frame0_uint8"].numpy()
        Image.fromarray(frame).save(tmp_path / "0.png")
        rules = jhmdb.PUBLISHED["cropmae"].propagation
        if kind == "vip":
            published = dataclasses.replace(vip.PUBLISHED["cropmae"], long_side=case["crop_size"][0])
            rules = vip.rules_for(frame.shape[:2], published, multiple=1)
            assert rules.stretched_to == tuple(case["network_size"])
        image_3HW = read_frame(tmp_path / "0.png", tuple(case["network_size"]), rules)
        torch.testing.assert_close(image_3HW, case["network_input0"], rtol=0, atol=2e-5)


def test_sizes_of_vip_frames(recording: dict[str, Any]) -> None:
    for case in recording["vip_resize_rule"]:
        published = dataclasses.replace(vip.PUBLISHED["cropmae"], long_side=case["long_side"])
        size = vip.rules_for((case["in_h"], case["in_w"]), published, multiple=1).stretched_to
        assert size == (case["out_h"], case["out_w"])
