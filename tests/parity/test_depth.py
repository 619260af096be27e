"""The depth probe against recordings of DINOv3's code: head, loss, schedule, updates, transforms, prediction and metrics."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from common.images import IMAGENET_MEAN, IMAGENET_STD
from eval.depth import protocol, task
from eval.depth.config import DepthConfig
from eval.depth.data import MM_PER_M, DepthSplit, Pair, scaled_box
from eval.depth.head import batch_loss, expected_depth, log_error_loss, make_head, predict
from eval.depth.metrics import counted_pixels, image_metrics
from eval.depth.protocol import PUBLISHED, Rules
from eval.depth.training import make_optimizer, train_step
from eval.depth.transforms import Changes, Recolouring, normalised, read_tensors, recoloured, rotated, training_pair
from eval.probes.dense import enlarged
from eval.probes.features import centre_pad
from eval.probes.heads import LinearHead
from tests.parity.conftest import ToyNetwork, close

AFTER_STEP = {"conv.weight": "conv_weight", "conv.bias": "conv_bias", "norm.weight": "bn_weight", "norm.bias": "bn_bias"}
NAMES = {"norm": "batchnorm_layer", "conv": "conv_depth"}
WHOLE = (0, 480, 0, 640)


@pytest.fixture(scope="module")
def recorded(golden_dir: Path) -> dict[str, Any]:
    return torch.load(golden_dir / "depth/depth_dinov3.pt", weights_only=True)


def head_of(state: dict[str, Tensor]) -> LinearHead:
    bins, channels = state["conv_depth.weight"].shape[:2]
    rules = dataclasses.replace(PUBLISHED, bins=bins, batch_norm="batchnorm_layer.weight" in state)
    head = make_head(channels, rules, seed=0)
    head.load_state_dict({name: state[recorded_name(name)] for name in head.state_dict()})
    return head


def recorded_name(name: str) -> str:
    part, _, rest = name.partition(".")
    return f"{NAMES[part]}.{rest}"


def test_constants(recorded: dict[str, Any]) -> None:
    config = recorded["config"]
    head, optimiser, schedule = config["decoder_head"], config["optimizer"], config["scheduler"]
    published = {
        "bins": head["n_output_channels"],
        "batch_norm": head["use_batchnorm"],
        "depth_range": (head["min_depth"], head["max_depth"]),
        "learning_rate": optimiser["lr"],
        "weight_decay": optimiser["weight_decay"],
        "gradient_clip": optimiser["gradient_clip"],
        "beta2": optimiser["beta2"],
        "iterations": schedule["total_iter"],
        "warmup_iterations": schedule["constructor_kwargs"]["warmup_iters"],
        "beta1_range": tuple(schedule["constructor_kwargs"][f"{name}_momentum"] for name in ("base", "max")),
        "first_rate_divisor": schedule["constructor_kwargs"]["final_div_factor"],
        "images_per_loss": config["bs"],
        "batch_size": config["bs"] * config["n_gpus"],
        "crop": tuple(config["transforms"]["train"]["random_crop"]),
        "brightness": tuple(config["transforms"]["train"]["brightness_range"]),
        "rotation_degrees": config["transforms"]["train"]["rotation_angle"],
        "test_flip": config["eval"]["use_tta"],
    }
    assert {name: getattr(PUBLISHED, name) for name in published} == published
    assert (head["bins_strategy"], head["norm_strategy"], head["use_cls_token"]) == ("linear", "linear", False)
    assert (config["eval"]["min_depth"], config["eval"]["max_depth"]) == PUBLISHED.depth_range
    assert (config["losses"], set(config["metrics"])) == ({"SIGLOSS": 1.0}, {"rmse", "abs_rel", "a1"})
    assert (config["transforms"]["mean"], config["transforms"]["std"]) == (list(IMAGENET_MEAN), list(IMAGENET_STD))
    assert config["transforms"]["normalization_constant"] == MM_PER_M
    assert PUBLISHED.loss_warmup_iterations == recorded["sigloss"]["multiloss_sequence"]["warm_iter"]


def test_head(recorded: dict[str, Any]) -> None:
    for case in recorded["head"]["eval_cases"]:
        head, features = head_of(case["state"]).eval(), case["patch_features"]
        if case["use_cls_token"]:
            features = torch.cat([features, case["cls_token"][:, :, None, None].expand(-1, -1, *features.shape[2:])], dim=1)
        logits = head([features])
        close(logits, case["logits"], 1e-5)
        nearest, *_, farthest = case["bins"].tolist()
        rules = dataclasses.replace(PUBLISHED, depth_range=(nearest, farthest))
        close(expected_depth(logits, rules), case["depth"], 2e-5)
    case = recorded["head"]["train_mode"]
    head = head_of(case["state_before"]).train()
    assert (head.norm.eps, head.norm.momentum) == (case["bn_eps"], case["bn_momentum"])
    logits = head([case["patch_features"]])
    close(logits, case["logits"], 1e-5)
    close(expected_depth(logits, PUBLISHED), case["depth"], 1e-5)
    close(head.get_buffer("norm.running_mean"), case["running_mean_after"], 1e-5)
    close(head.get_buffer("norm.running_var"), case["running_var_after"], 1e-5)
    linear = [
        case for case in recorded["head"]["features_to_depth"] if case["norm_strategy"] == case["bins_strategy"] == "linear"
    ]
    assert linear
    for case in linear:
        nearest, *_, farthest = case["bins"].tolist()
        rules = dataclasses.replace(PUBLISHED, depth_range=(nearest, farthest))
        close(expected_depth(case["logits"], rules), case["depth"], 2e-5)


def test_fresh_head(recorded: dict[str, Any]) -> None:
    fresh = recorded["head"]["fresh_init"]
    head = make_head(512, PUBLISHED, seed=0)
    assert float(head.conv.weight.std()) == pytest.approx(fresh["weight_std"], rel=0.02)
    assert float(head.get_parameter("conv.bias").abs().max()) == fresh["bias_abs_max"]
    assert len(list(head.parameters())) == len(fresh["parameter_names"])


def test_loss(recorded: dict[str, Any]) -> None:
    recording = recorded["sigloss"]
    for case in recording["cases"]:
        depth = case["pred"].clone().requires_grad_()
        loss = log_error_loss(depth, case["gt"] * case["valid_mask"], not case["warm"], PUBLISHED)
        loss.backward()  # type: ignore[no-untyped-call]
        assert float(loss) == pytest.approx(case["loss"], abs=1e-5), case["note"]
        close(depth.grad, case["grad"], 1e-5)
    sequence = recording["multiloss_sequence"]
    for step, wanted in enumerate(sequence["loss_by_call"].tolist()):
        with_variance = step >= PUBLISHED.loss_warmup_iterations
        truth = sequence["gt"] * sequence["valid_mask"]
        assert float(log_error_loss(sequence["pred"], truth, with_variance, PUBLISHED)) == pytest.approx(wanted, abs=1e-5)
    ones = torch.ones(1, 1, 2, 2, requires_grad=True)
    for with_variance, name in ((False, "warm_loss"), (True, "loss")):
        loss = log_error_loss(ones, ones.detach(), with_variance, PUBLISHED)
        assert float(loss) == recording["perfect"][name]
        (gradient,) = torch.autograd.grad(loss, ones)
        assert bool(gradient.isfinite().all()), "a root at 0 has none"
    one_pixel = torch.zeros(1, 1, 2, 2)
    one_pixel[..., 0] = torch.tensor([[[1.0, 0.0]]])
    assert math.isnan(recording["one_valid_pixel_loss"])
    assert math.isnan(recording["no_valid_pixel_loss"])
    for truth in (one_pixel, 0 * one_pixel):
        assert math.isnan(float(log_error_loss(ones, truth, True, PUBLISHED)))


def rules_of_schedule(case: dict[str, Any], final: float, warmup: int, low: float, high: float) -> Rules:
    return dataclasses.replace(
        PUBLISHED,
        learning_rate=case["lr0"],
        iterations=case["total"],
        warmup_iterations=warmup,
        first_rate_divisor=final,
        last_rate_divisor=25 * final,
        beta1_range=(low, high),
    )


def test_schedule(recorded: dict[str, Any]) -> None:
    found = recorded["schedule"]["published"]
    for step, rate, beta1 in zip(found["steps"].tolist(), found["lr"].tolist(), found["beta1"].tolist(), strict=True):
        assert protocol.learning_rate(PUBLISHED, step) == pytest.approx(rate, rel=1e-9)
        assert protocol.beta1(PUBLISHED, step) == pytest.approx(beta1, rel=1e-9)
    ours = (PUBLISHED.learning_rate, PUBLISHED.iterations, PUBLISHED.warmup_iterations)
    assert ours == (found["lr0"], found["total"], found["warmup"])
    assert PUBLISHED.learning_rate / PUBLISHED.last_rate_divisor == pytest.approx(found["min_lr"])
    rates = [protocol.learning_rate(PUBLISHED, step) for step in range(PUBLISHED.iterations)]
    assert sum(rates) == pytest.approx(found["lr_sum"], rel=1e-9)
    assert (max(rates), rates.index(max(rates))) == (pytest.approx(found["lr_max"], rel=1e-9), found["lr_max_step"])
    assert sum(protocol.beta1(PUBLISHED, step) for step in range(PUBLISHED.iterations)) == pytest.approx(
        found["beta1_sum"], rel=1e-9
    )
    for case in recorded["schedule"]["variants"]:
        rules = rules_of_schedule(case, case["final_div_factor"], case["warmup"], case["base_momentum"], case["max_momentum"])
        for step, (rate, beta1) in enumerate(zip(case["lr"].tolist(), case["beta1"].tolist(), strict=True)):
            assert protocol.learning_rate(rules, step) == pytest.approx(rate, rel=1e-9)
            assert protocol.beta1(rules, step) == pytest.approx(beta1, rel=1e-9)


@pytest.mark.parametrize("name", ["published_first_5", "short_schedule", "clipped"])
def test_updates(recorded: dict[str, Any], name: str) -> None:
    run = recorded["train"][name]
    schedule = [run[f"schedule_{key}"] for key in ("final_div_factor", "warmup_iters", "base_momentum", "max_momentum")]
    rules = dataclasses.replace(
        rules_of_schedule(run, *schedule),
        bins=len(run["initial_state"]["conv_depth.weight"]),
        gradient_clip=run["gradient_clip"],
        loss_warmup_iterations=run["sigloss_warm_iter"],
        depth_range=(run["min_depth"], run["max_depth"]),
        beta2=run["beta2"],
        weight_decay=run["weight_decay"],
    )
    head = head_of(run["initial_state"]).train()
    optimizer = make_optimizer(head, rules)
    for step, (features, labels) in enumerate(zip(run["features"], run["labels"], strict=True)):
        loss, norm = train_step(head, optimizer, features, labels, step, rules)
        (group,) = optimizer.param_groups
        assert group["lr"] == pytest.approx(float(run["lr"][step]), rel=1e-9)
        assert group["betas"][0] == pytest.approx(float(run["beta1"][step]), rel=1e-9)
        assert float(loss) == pytest.approx(float(run["loss"][step]), abs=2e-5)
        assert float(norm) == pytest.approx(float(run["grad_norm_before_clip"][step]), rel=1e-4, abs=1e-4)
        for ours, theirs in AFTER_STEP.items():
            close(head.state_dict()[ours], run[f"{theirs}_after_step"][step], 1e-4)
    for ours, value in head.state_dict().items():
        close(value, run["final_state"][recorded_name(ours)], 1e-4)


def test_loss_of_a_batch_is_the_mean_over_its_pairs() -> None:
    logits, truth = torch.randn(4, 5, 6, 6), torch.rand(4, 1, 6, 6) + 0.5
    depth = expected_depth(logits, PUBLISHED)
    parts = [log_error_loss(depth[rows], truth[rows], True, PUBLISHED) for rows in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(batch_loss(logits, truth, True, PUBLISHED), torch.stack(parts).mean())


def toy_features(geometry: dict[str, Any]) -> Any:
    return ToyNetwork(geometry["toy_conv_weight"], geometry["toy_conv_bias"])


def toy_estimate(geometry: dict[str, Any]) -> Any:
    head, features = head_of(geometry["head_state"]).eval(), toy_features(geometry)
    return lambda images: expected_depth(head(features(images)), PUBLISHED)


def test_padding_and_boxes(recorded: dict[str, Any]) -> None:
    geometry = recorded["geometry"]
    for multiple, height, width, *borders in geometry["center_padding_rows_multiple_h_w_top_bottom_left_right"].tolist():
        padded = centre_pad(torch.ones(1, height, width), multiple)[0]
        rows, columns = (padded.amax(dim=dim).nonzero()[:, 0] for dim in (1, 0))
        before = (int(rows[0]), len(padded) - 1 - int(rows[-1]), int(columns[0]), padded.shape[1] - 1 - int(columns[-1]))
        assert list(before) == borders
    for box, rows in (
        (PUBLISHED.test_box, recorded["eigen_crop_h_w_y1_y2_x1_x2"]),
        (PUBLISHED.train_box, recorded["train_transforms"]["nyu_crop_h_w_y1_y2_x1_x2"]),
    ):
        for height, width, *wanted in rows.tolist():
            assert list(scaled_box(box, height, width)) == wanted


def test_prediction_on_the_grid_and_at_the_size_of_the_truth(recorded: dict[str, Any]) -> None:
    geometry = recorded["geometry"]
    estimate = toy_estimate(geometry)
    for case in geometry["cases"]:
        assert list(centre_pad(case["image"], geometry["patch"]).shape[-2:]) == case["padded_size"]
        depth = predict(estimate, case["image"], geometry["patch"], flip=False)
        close(depth, case["depth_at_patch_resolution"], 1e-4)
        close(enlarged(depth, case["label_size"]), case["depth_at_label_size"], 1e-4)


def tolerance(name: str) -> float:
    return {"silog": 5e-3, "a1": 2e-3, "a2": 2e-3, "a3": 2e-3}.get(name, 2e-4)


def assert_metrics(found: dict[str, float], wanted: dict[str, float], scale: float = 1.0) -> None:
    assert set(found) == set(wanted)
    for name, value in found.items():
        assert value == pytest.approx(float(wanted[name]), abs=tolerance(name) * scale, nan_ok=True), name


def assert_means(found: list[dict[str, float]], wanted: dict[str, float]) -> None:
    """Images without a pixel that counts, which the task refuses, are left out but for silog, where they count 0."""
    whole = {str(index): metrics for index, metrics in enumerate(found) if not math.isnan(metrics["rmse"])}
    values = {name: metric.value for name, metric in task.means(whole).items()}
    values["silog"] *= len(whole) / len(found)
    assert_metrics(values, wanted)


def test_metrics_of_single_pairs(recorded: dict[str, Any]) -> None:
    for case in recorded["metric_cases"]:
        depth, truth, valid = (case[name][0, 0] for name in ("pred", "gt", "valid_mask"))
        wide = dataclasses.replace(PUBLISHED, depth_range=(0.0, math.inf))
        found = image_metrics(depth, truth, valid, wide)
        assert set(found) == set(case["values"]) == set(recorded["metric_names"])
        for name, value in found.items():
            limit = (2e-2 if "const" in case["note"] else 1e-3) if name == "silog" else 1e-5
            assert value == pytest.approx(case["values"][name], abs=limit, nan_ok=True), (case["note"], name)


def evaluated(recorded: dict[str, Any], flip: bool, rules: Rules) -> list[dict[str, float]]:
    evaluation = recorded["evaluation"]
    plain, mirrored, found = evaluation["pred_plain"], evaluation["pred_of_flipped_image"], []
    for index, truth_mm in enumerate(evaluation["gt_mm"]):
        truth = truth_mm[0].float() / 1000
        outputs = {False: plain[index][None], True: mirrored[index][None]}
        image = torch.tensor([1.0, 0.0]).expand(1, 1, 1, 2)  # whose mirror image can be told from it

        def estimate(images: Tensor, outputs: dict[bool, Tensor] = outputs) -> Tensor:
            return outputs[bool(images[0, 0, 0, 0] == 0)]

        depth = predict(estimate, image, 1, flip)
        depth = enlarged(depth, truth.shape)[0, 0]
        found.append(image_metrics(depth, truth, counted_pixels(truth, rules), rules))
    return found


def test_metrics_per_image_with_and_without_flip_and_box(recorded: dict[str, Any]) -> None:
    for run in recorded["evaluation"]["runs"]:
        rules = PUBLISHED if run["eval_mask"] == "NYU_EIGEN" else dataclasses.replace(PUBLISHED, test_box=WHOLE)
        found = evaluated(recorded, run["use_tta"], rules)
        for index, metrics in enumerate(found):
            assert_metrics(metrics, {name: values[index] for name, values in run["per_image"].items()})
        assert_means(found, run["mean"])
    other = recorded["evaluation"]["other_range_run"]
    rules = dataclasses.replace(PUBLISHED, depth_range=(other["min_depth"], other["max_depth"]))
    found = evaluated(recorded, True, rules)
    assert_means(found, other["mean"])


def test_from_image_to_metrics(recorded: dict[str, Any], tmp_path: Path) -> None:
    whole, geometry, pairs = recorded["evaluation_whole"], recorded["geometry"], {}
    estimate = toy_estimate(geometry)
    for index, pixels in enumerate(whole["rgb"]):
        pairs[str(index)] = pair = Pair(tmp_path / f"{index}.png", tmp_path / f"{index}_depth.png")
        Image.fromarray(pixels.numpy()).save(pair.image)
        Image.fromarray(whole["depth_mm"][index].numpy().astype(np.uint16)).save(pair.depth)
        image_3HW, truth_1HW = read_tensors(pair)
        image = normalised(image_3HW)
        close(torch.stack([image, image.flip(-1)]), whole["images"][index], 1e-4)
        close(truth_1HW, whole["labels_m"][index], 1e-6)
        depth = predict(estimate, image[None], geometry["patch"], flip=True)
        close(depth, whole["depth_flip_averaged_at_patch_resolution"][index], 1e-4)
    config = DepthConfig(backbone=tmp_path, data=tmp_path, output=tmp_path, draw_images=0, workers=0, device="cpu")
    split = DepthSplit(root=tmp_path, name="test", pairs=pairs)
    tested = task.test_head(config, PUBLISHED, split, head_of(geometry["head_state"]), toy_features(geometry))
    for index, metrics in enumerate(tested.values()):
        assert_metrics(metrics, {name: values[index] for name, values in whole["per_image"].items()}, scale=0.5)


def test_training_transforms(recorded: dict[str, Any]) -> None:
    found = recorded["train_transforms"]
    for case in found["rotate_cases"]:
        image, depth = rotated(found["rotate_input_image"], found["rotate_input_depth"], case["angle_degrees"])
        close(image, case["image"], 1e-4)
        close(depth, case["depth"], 0)
    for case in found["color_cases"]:
        by = Recolouring(case["gamma"], case["brightness"], tuple(case["colors"]))
        close(recoloured(case["image"], by), case["output"].float(), 1e-5)
    for case in found["pipeline"]:
        drawn = case["drawn"]
        by = Recolouring(drawn["gamma"], drawn["brightness"], tuple(drawn["colors"]))
        changes = Changes(
            degrees=drawn["angle_degrees"] if drawn["rotated"] else None,
            flip=drawn["flipped"],
            top=drawn["crop_top"],
            left=drawn["crop_left"],
            recolouring=by if drawn["color"] else None,
        )
        image, depth = case["rgb"].permute(2, 0, 1).float() / 255, case["depth_mm"][None].float() / 1000
        rules = dataclasses.replace(PUBLISHED, crop=tuple(case["crop_size"]))
        image, depth = training_pair(image, depth, changes, rules)
        close(image, case["image_out"], 1e-4)
        close(depth, case["depth_out"], 1e-6)
