"""Linear segmentation: recordings of DINOv3's, DINOv2's and NeCo's own code."""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as TF

from common.images import IMAGENET_MEAN, IMAGENET_STD
from eval.linear_segmentation.protocol import RULES, Rules, learning_rate
from eval.linear_segmentation.task import class_names, extract_maps, predict, summary
from eval.linear_segmentation.training import make_optimizer, train_step
from eval.linear_segmentation.transforms import draw_changes, read_test, test_pair, training_pair
from eval.probes.augment import LONGEST_ASPECT, normalised, resize_image, scaled_size
from eval.probes.data import VOID, LabelledSet, Split
from eval.probes.dense import cross_entropy, enlarged, joined_windows, window_boxes
from eval.probes.features import centre_pad
from eval.probes.heads import LinearHead, kept_channels
from eval.probes.items import class_scores
from eval.probes.pixels import count_pixels
from eval.probes.sets import ADE20K, VOC2012
from tests.parity.conftest import ToyNetwork

NAMES = {"batchnorm_layer": "norm", "bn": "norm", "conv_seg": "conv"}
test_pair.__test__ = False  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def frozen(golden_dir: Path) -> Path:
    return golden_dir / "frozen"


@pytest.fixture(scope="module")
def dinov3(frozen: Path) -> Any:
    return torch.load(frozen / "linear_segmentation_dinov3.pt", weights_only=True)


@pytest.fixture(scope="module")
def dinov3_transforms(frozen: Path) -> Any:
    return torch.load(frozen / "linear_segmentation_dinov3_transforms.pt", weights_only=True)


@pytest.fixture(scope="module")
def dinov2(frozen: Path) -> Any:
    constants = json.loads((frozen / "linear_segmentation_dinov2.json").read_text())
    return {**constants, **torch.load(frozen / "linear_segmentation_dinov2.pt", weights_only=True)}


@pytest.fixture(scope="module")
def neco(frozen: Path) -> Any:
    return torch.load(frozen / "linear_protocol_neco.pt", weights_only=True)


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    parts = {key: key.partition(".") for key in state}
    return {f"{NAMES.get(part, part)}.{name}": state[key] for key, (part, _, name) in parts.items()}


def head_of(state: Mapping[str, Tensor], rules: Rules) -> LinearHead:
    ours = renamed(state)
    classes, channels = ours["conv.weight"].shape[:2]
    head = LinearHead(channels, classes, rules.batch_norm, rules.weight_deviation, seed=0)
    head.load_state_dict(ours)
    return head


def rules_like(recorded: Mapping[str, Any], rules: Rules) -> Rules:
    found = {
        ours: recorded[theirs]
        for ours, theirs in (("warmup_iterations", "warmup_iters"), ("warmup_ratio", "warmup_ratio"))
        if theirs in recorded
    }
    return dataclasses.replace(rules, iterations=recorded["total_iter"], **found)


class Toy(ToyNetwork):
    blocks = (0,)
    backbone = SimpleNamespace(spec=SimpleNamespace(num_blocks=1))


def extract_by(weight: Tensor, bias: Tensor, rules: Rules) -> Any:
    features: Any = Toy(weight, bias)
    return partial(extract_maps, features, rules)


def recorded_maps(maps_1Dhw: Tensor, _: Tensor) -> dict[str, list[Tensor]]:
    """In the place of what extracts the maps of an image."""
    return {"last": [maps_1Dhw]}


def set_like(of: LabelledSet, num_classes: int) -> LabelledSet:
    """A data set with so many classes."""
    return dataclasses.replace(of, classes=tuple(map(str, range(num_classes))))


def split_of(of: LabelledSet, pairs: Sequence[tuple[Tensor, Tensor]], folder: Path) -> Split:
    """Files of images [H, W, 3] and label maps. ADE20K's have 0 alone for what the recordings also call 255, void."""
    paths = {}
    for number, (pixels_HW3, labels_HW) in enumerate(pairs):
        paths[str(number)] = image, labels = folder / f"{number}.png", folder / f"{number}_labels.png"
        Image.fromarray(pixels_HW3.numpy()).save(image)
        labels_HW = labels_HW.masked_fill(labels_HW == VOID, 0) if of.void == 0 else labels_HW
        Image.fromarray(labels_HW.numpy()).save(labels)
    return Split(root=folder, of=of, name=of.test, pairs=paths, restricted=False)


def classes_of(of: LabelledSet, labels_HW: Tensor, folder: Path) -> Any:
    """The classes that are read from a file of these labels."""
    ((_, path),) = split_of(of, [(labels_HW, labels_HW)], folder).pairs.values()
    return of.read_classes(path, (labels_HW.shape[1], labels_HW.shape[0]))


def metrics_of(counts_3K: Tensor, rules: Rules, of: LabelledSet) -> dict[str, float]:
    """The metrics of a result with these counts, by the names of the recordings."""
    metrics, _ = summary([{"counts": counts_3K[None].int(), "history": [(1, 0.0)]}], rules, of)
    ours = {"mIoU": "mIoU", "aAcc": "aAcc", "acc": "mAcc", "recall": "mAcc", "dice": "mDice"}
    ours |= {"precision": "mPrecision", "fscore": "mFscore"}
    return {theirs: metrics[name].value for theirs, name in ours.items()}


def test_the_constants_are_those_of_the_configurations(dinov3: Any, dinov2: Any) -> None:
    config, rules = dinov3["config"], RULES["dinov3"]
    assert (rules.dropout, rules.batch_size) == (config["decoder_head"]["dropout"], config["bs"] * config["n_gpus"])
    optimizer = config["optimizer"]
    assert (rules.learning_rates[0], rules.weight_decay) == (optimizer["lr"], optimizer["weight_decay"])
    assert rules.betas == (optimizer["beta1"], optimizer["beta2"])
    schedule = config["scheduler"]["constructor_kwargs"]
    assert (rules.warmup_iterations, rules.warmup_ratio) == (schedule["warmup_iters"], schedule["warmup_ratio"])
    assert (rules.iterations, rules.evaluate_every) == (config["scheduler"]["total_iter"], config["eval"]["eval_interval"])
    train = config["transforms"]["train"]
    assert (rules.size, list(rules.scales), rules.flip) == (
        train["img_size"],
        train["random_img_size_ratio_range"],
        train["flip_prob"],
    )
    assert (rules.size, rules.stride) == (config["eval"]["crop_size"], config["eval"]["stride"])
    head, metric = config["decoder_head"], (config["metric_to_save"], config["eval"]["mode"], config["eval"]["use_tta"])
    assert (head["use_batchnorm"], head["use_backbone_norm"], head["use_cls_token"]) == (
        rules.batch_norm,
        rules.final_norm,
        False,
    )
    assert (head["backbone_out_layers"], head["num_classes"]) == (rules.layers[0].upper(), ADE20K.num_classes)
    assert (metric, optimizer["gradient_clip"]) == (("mIoU", "slide", False), math.inf)
    assert config["train"] == {"diceloss_weight": 0.0, "celoss_weight": 1.0}
    assert_normalisation(config["transforms"])
    for constants in dinov2["constants"].values():
        rules = RULES["dinov2"]
        assert (rules.learning_rates[0], rules.weight_decay, rules.iterations) == (
            constants["lr"],
            constants["weight_decay"],
            constants["iterations"],
        )
        assert rules.batch_size == constants["images_per_gpu"] * constants["gpus"]
        assert (rules.dropout, rules.evaluate_every) == (constants["dropout_ratio"], constants["evaluation_interval"])
        assert [rules.size] * 2 == constants["crop_size"] == constants["test_crop"]
        assert [rules.stride] * 2 == constants["test_stride"]
        assert (list(rules.scales), rules.largest_share) == (constants["resize_ratio_range"], constants["cat_max_ratio"])
        assert (rules.flip, list(rules.betas or ())) == (constants["flip_prob"], constants["betas"])
        assert (rules.warmup_iterations, rules.warmup_ratio) == (constants["warmup_iters"], constants["warmup_ratio"])
        assert [LONGEST_ASPECT * rules.size, rules.size] == constants["resize_scale"] == constants["test_scale"]
        assert (constants["optimizer"], constants["lr_policy"], constants["power"]) == (rules.optimiser, "poly", 1.0)
        assert (constants["pad_label"], constants["grad_clip"], constants["test_flip"]) == (VOID, None, False)
        assert constants["photometric_distortion"] == (rules.hue_degrees is not None)
        last = constants["backbone_out_indices"][constants["in_index"][0]]
        assert last == max(constants["backbone_out_indices"])
        assert_normalisation(constants)
    assert dinov2["loss"]["ignore_index"] == VOID
    assert dinov2["loss"]["avg_non_ignore"] == (RULES["dinov2"].loss_per == "labelled pixel")
    for name, found in (("voc2012", VOC2012), ("ade20k", ADE20K)):
        assert dinov2["constants"][name]["num_classes"] == found.num_classes


def assert_normalisation(recorded: Mapping[str, Sequence[float]]) -> None:
    mean, deviation = (torch.tensor(recorded[name])[:, None, None] for name in ("mean", "std"))
    levels = torch.arange(256.0).expand(3, 1, 256)
    torch.testing.assert_close(normalised(levels.byte()), (levels - mean) / deviation)


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_dinov3_head(kind: str, dinov3: Any) -> None:
    group = dinov3["head"][kind]
    for case in group["cases"]:
        head = head_of(group["state"], RULES["dinov3"])
        assert (head.norm.eps, head.norm.momentum) == (group["bn_eps"], group["bn_momentum"])
        kept_BD = kept_channels(*case["dropout_channel_mask"].shape, case["dropout_p"], seed=0)
        assert kept_BD is not None
        assert kept_BD.unique().tolist() == case["dropout_channel_mask"].unique().tolist()
        maps = [found if found.ndim == 4 else found[:, :, None, None] for found in case["features"]]
        with torch.no_grad():
            logits = head.eval()(maps)
            torch.testing.assert_close(logits, case["eval_logits"], atol=1e-5, rtol=0)
            torch.testing.assert_close(enlarged(logits, case["predict_size"]), case["predict_logits"], atol=1e-5, rtol=0)
            torch.testing.assert_close(head.train()(maps), case["train_logits"], atol=1e-5, rtol=0)
            torch.testing.assert_close(head.norm.running_mean, case["train_running_mean_after"], atol=1e-5, rtol=0)
            torch.testing.assert_close(head.norm.running_var, case["train_running_var_after"], atol=1e-5, rtol=0)
            dropped = head(maps, case["dropout_channel_mask"])
            torch.testing.assert_close(dropped, case["train_dropout_logits"], atol=1e-5, rtol=0)


def test_fresh_dinov3_weights(dinov3: Any) -> None:
    recorded = dinov3["head"]["fresh_init"]
    head = LinearHead(recorded["in_channels"], recorded["num_classes"], True, RULES["dinov3"].weight_deviation, seed=1)
    assert float(head.conv.weight.std()) == pytest.approx(recorded["conv_weight_std"], rel=0.02)
    assert float(head.conv.get_parameter("bias").abs().max()) == recorded["conv_bias_absmax"]


def rates_of(recorded: Mapping[str, Any], protocol: Rules, steps: int | None = None) -> list[float]:
    """The rates of all steps of a recorded schedule, or of the first."""
    rules, total = rules_like(recorded, protocol), recorded["total_iter"]
    return [learning_rate(rules, recorded["base_lr"], step, total, 1) for step in range(steps or total)]


@pytest.mark.parametrize(("protocol", "relative"), [("dinov3", 1e-9), ("dinov2", 1e-12)])
def test_learning_rates(protocol: Any, relative: float, request: pytest.FixtureRequest) -> None:
    recorded = request.getfixturevalue(protocol)["lr"]
    for case in (recorded["published"], *recorded["variants"]):
        rates = rates_of(case, RULES[protocol])
        found = [rates[step] for step in case.get("steps", range(len(rates)))]
        assert found == pytest.approx(list(map(float, case["lr"])), rel=relative, abs=1e-15)
    published = recorded["published"]
    rates = rates_of(published, RULES[protocol])
    assert sum(rates) == pytest.approx(published["sum_over_all_steps"], rel=1e-9)
    assert (max(rates), rates.index(max(rates))) == (pytest.approx(published["max"], rel=relative), published["argmax"])


def trained(run: Any, protocol: Rules, rates: Sequence[float]) -> tuple[LinearHead, list[float], list[Tensor]]:
    """A head trained on recorded features beside one of another rate, the losses, and the weights after every step."""
    rules = dataclasses.replace(rules_like(run, protocol), weight_decay=run["weight_decay"], betas=tuple(run["betas"]))
    heads = [head_of(run["init_state"], rules).train() for _ in range(2)]
    optimizer = make_optimizer(heads, rules)
    losses, weights = [], []
    for features, labels, rate in zip(run["features"], run["labels"], rates, strict=True):
        found = train_step(heads, optimizer, [[features]] * 2, labels[:, 0], [rate, 3 * rate], [None] * 2, rules)
        losses.append(float(found[0]))
        weights.append(heads[0].conv.weight.detach().clone())
    return heads[0], losses, weights


def assert_state(head: LinearHead, recorded: Mapping[str, Tensor], tolerance: float) -> None:
    found = head.state_dict()
    for name, value in renamed(recorded).items():
        torch.testing.assert_close(found[name], value, atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", ["mini_schedule", "published_schedule_first_5", "constant_like"])
def test_dinov3_training(name: str, dinov3: Any) -> None:
    run = dinov3["train"][name]
    rates = rates_of(run, RULES["dinov3"], len(run["features"]))
    assert rates == pytest.approx(run["lr_per_step"].tolist(), rel=1e-9, abs=1e-15)
    head, losses, weights = trained(run, RULES["dinov3"], rates)
    assert losses == pytest.approx(run["loss_per_step"].tolist(), abs=1e-5)
    tolerance = 5e-5 if name == "constant_like" else 1e-5
    torch.testing.assert_close(torch.stack(weights), run["conv_weight_after_step"], atol=tolerance, rtol=0)
    assert_state(head, run["final_state"], tolerance)


def test_dinov3_loss_is_divided_by_all_pixels(dinov3: Any) -> None:
    case = dinov3["loss"]
    assert (int((case["labels"] != VOID).sum()), case["labels"].numel()) == (case["num_valid"], case["num_all"])
    loss = cross_entropy(case["logits"], case["labels"], RULES["dinov3"].loss_per == "labelled pixel")
    assert float(loss) == pytest.approx(case["cross_entropy"], abs=1e-6)


def assert_classes(found: Tensor, recorded: Tensor, logits: Tensor) -> None:
    """Equal, but where the two best probabilities are."""
    best = logits.softmax(1).topk(2, dim=1).values[0]
    clear = best[0] - best[1] >= 1e-5
    assert torch.equal(found[clear], recorded[clear].long())


def check_windows(case: Any, head: LinearHead, rules: Rules, extract: Any) -> tuple[list[Any], Tensor]:
    """The windows of an image, and the logits of the whole."""
    height, width = case["image"].shape[-2:]
    assert rules.stride is not None
    boxes = window_boxes(height, width, rules.size, rules.stride, rules.smaller_windows)
    with torch.no_grad():
        logits = [head(extract(case["image"][..., top:bottom, left:right])["last"]) for top, bottom, left, right in boxes]
    for found, (top, bottom, left, right), wanted in zip(logits, boxes, case.get("crop_logits", []), strict=False):
        torch.testing.assert_close(enlarged(found, (bottom - top, right - left)), wanted, atol=1e-4, rtol=0)
    whole = joined_windows(logits, boxes, (height, width))
    torch.testing.assert_close(whole, case["logits"], atol=1e-4, rtol=0)
    return boxes, whole


def test_dinov3_sliding_windows(dinov3: Any) -> None:
    group = dinov3["slide"]
    model = group["toy_model"]
    rules = dataclasses.replace(RULES["dinov3"], size=group["crop"], stride=group["stride"])
    extract = extract_by(model["conv_weight"], model["conv_bias"], rules)
    head = head_of(model["head_state"], rules).eval()
    for case in group["cases"]:
        boxes, whole = check_windows(case, head, rules, extract)
        assert boxes == [tuple(box) for box in case["boxes_y1y2x1x2"].tolist()]
        size = tuple(case["label_size"])
        torch.testing.assert_close(enlarged(whole, size).softmax(1), case["make_inference_softmax"], atol=1e-4, rtol=0)
        (found,) = predict([head], case["image"][0], size, rules, extract)
        assert_classes(found, case["argmax"][0], enlarged(case["logits"], size))
    gap = group["gap_case"]
    with pytest.raises(ValueError, match="leave out a part of an image"):
        window_boxes(*gap["image_size"], gap["crop"], gap["stride"], smaller=True)


def test_dinov3_metrics(dinov3: Any, tmp_path: Path) -> None:
    for case in dinov3["metrics"]["cases"]:
        assert case["ignore_index"] == VOID
        of = set_like(ADE20K if case["reduce_zero_label"] else VOC2012, case["num_classes"])
        counts = []
        for prediction, label, areas in zip(case["pred"], case["label"], case["areas_per_image"], strict=True):
            counted = count_pixels(prediction, torch.from_numpy(classes_of(of, label, tmp_path)), case["num_classes"])
            intersection, predicted, labelled = counted
            wanted = torch.stack([intersection, predicted + labelled - intersection, predicted, labelled]).float()
            assert torch.equal(wanted, areas)
            counts.append(counted)
        total = torch.stack(counts).sum(0)
        found = metrics_of(total, RULES["dinov3"], of)
        assert {name: found[name] / 100 for name in case["summary"]} == pytest.approx(case["summary"], abs=1e-6)
        (iou_K,), (accuracy_K,), _ = class_scores(total[None].numpy())
        for values_K, name in ((iou_K, "mIoU"), (accuracy_K, "acc"), (accuracy_K, "recall")):
            assert (values_K / 100).tolist() == pytest.approx(case["per_class"][name].tolist(), abs=1e-6, nan_ok=True)


def test_dinov3_reduced_labels_are_the_classes_that_are_read(dinov3: Any, tmp_path: Path) -> None:
    zero = dinov3["metrics"]["reduce_zero_label_map"]
    known = torch.tensor(ADE20K.is_label(zero["in"].numpy()))
    assert classes_of(ADE20K, zero["in"][known][None], tmp_path)[0].tolist() == zero["out_uint8"][known].tolist()


class Replay:
    """A generator that hands out what a training image of the recordings drew, and demands DINOv3's order."""

    def __init__(self, case: Mapping[str, Any], scales: tuple[float, float]) -> None:
        low, high = scales
        boxes = [("integers", int(start)) for box in case["candidate_boxes_y1y2x1x2"] for start in (box[0], box[2])]
        flip = ("random", 0.0 if case["flip"] else 1.0)
        self.left = [("uniform", low + (high - low) * case["first_uniform"]), *boxes, flip]
        if case["photometric"]:
            self.left += draws_of_colours(case["photo_ops"])

    def _next(self, kind: str) -> Any:
        expected, value = self.left.pop(0)
        assert kind == expected
        return value

    def uniform(self, low: float, high: float) -> Any:
        value = self._next("uniform")
        assert low <= value <= high
        return value

    def integers(self, first: int, stop: int | None = None) -> Any:
        value = self._next("integers")
        assert 0 <= value < (first if stop is None else stop)
        return value

    def random(self) -> Any:
        return self._next("random")


def draws_of_colours(changes: Sequence[tuple[str, float, float]]) -> Iterator[tuple[str, float]]:
    """For each change whether it is made and by how much, and after the brightness whether the contrast is next or last."""
    made = {}
    for name, factor, offset in changes:
        named = {"convert": "brightness" if offset else "contrast"}.get(name, name)
        made[named] = offset or factor
    contrast_is_last = list(made)[-1:] == ["contrast"]
    middle = ["saturation", "hue"]
    for name in ("brightness", "order", *([*middle, "contrast"] if contrast_is_last else ["contrast", *middle])):
        if name == "order":
            yield "integers", int(not contrast_is_last)
            continue
        yield "integers", int(name in made)
        if name in made:
            yield "uniform", made[name]


def test_dinov3_training_transform(dinov3_transforms: Any, tmp_path: Path) -> None:
    for case in dinov3_transforms["train_transform"]:
        rules = dataclasses.replace(RULES["dinov3"], size=case["img_size"])
        if not case["photometric"]:
            rules = dataclasses.replace(rules, hue_degrees=None)
        replay: Any = Replay(case, rules.scales)
        changes = draw_changes(classes_of(ADE20K, case["label"], tmp_path), rules, replay)
        assert replay.left == []
        assert min(changes.labels_HW.shape) == case["small_size"]
        assert np.array_equal(changes.labels_HW, classes_of(ADE20K, case["resized_label"], tmp_path))
        assert (changes.box, changes.flip) == (tuple(case["chosen_box"]), case["flip"])
        assert changes.colours == [tuple(change) for change in case["photo_ops"]]
        image, (height, width) = Image.fromarray(case["image"].numpy()), changes.labels_HW.shape
        assert np.array_equal(resize_image(image, (width, height), by_opencv=False), case["resized_image"].numpy())
        pixels, labels = training_pair(image, changes, rules)
        level = 1 / 255 / min(IMAGENET_STD)
        torch.testing.assert_close(pixels, case["output_image"], atol=level if case["photometric"] else 1e-5, rtol=0)
        assert torch.equal(labels, case["output_label"])


@pytest.mark.parametrize("seed", range(4))
def test_neco_training_transform_is_torchvisions(seed: int) -> None:
    """Nothing of NeCo's own is recorded."""
    rules, random = dataclasses.replace(RULES["neco"], size=32), np.random.default_rng(seed)
    image = Image.fromarray(random.integers(0, 256, (40, 57, 3), dtype=np.uint8))
    labels = random.integers(0, 21, (40, 57), dtype=np.uint8)
    state = torch.get_rng_state()
    pixels, classes = training_pair(image, draw_changes(labels, rules, np.random.default_rng(seed)), rules)
    assert torch.equal(torch.get_rng_state(), state)
    again = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(again.integers(2**48)))
        box = RandomResizedCrop.get_params(image, [0.8, 1.0], [3 / 4, 4 / 3])
    part = TF.resized_crop(image, *box, [32, 32], InterpolationMode.BILINEAR)
    wanted = TF.resized_crop(Image.fromarray(labels), *box, [32, 32], InterpolationMode.NEAREST)
    if again.random() < 0.5:
        part, wanted = TF.hflip(part), TF.hflip(wanted)
    expected = TF.normalize(TF.to_tensor(part), list(IMAGENET_MEAN), list(IMAGENET_STD))
    torch.testing.assert_close(pixels, expected, atol=1e-5, rtol=0)
    assert np.array_equal(classes.numpy(), np.array(wanted))


def test_dinov3_test_transform(dinov3_transforms: Any) -> None:
    for case in dinov3_transforms["eval_transform"]:
        rules = dataclasses.replace(RULES["dinov3"], size=case["img_size"])
        image, labels = test_pair(Image.fromarray(case["image"].numpy()), case["label"].numpy(), rules)
        torch.testing.assert_close(image, case["output_image"], atol=1e-5, rtol=0)
        assert torch.equal(labels, case["output_label"])


def test_dinov3_from_image_to_metric(dinov3_transforms: Any, tmp_path: Path) -> None:
    group = dinov3_transforms["end_to_end"]
    rules = dataclasses.replace(RULES["dinov3"], size=group["crop"], stride=group["stride"])
    resized = dataclasses.replace(rules, size=group["img_size"])
    head = head_of(group["head_state"], rules).eval()
    extract = extract_by(group["toy_conv_weight"], group["toy_conv_bias"], rules)
    of = set_like(ADE20K, group["num_classes"])
    split = split_of(of, [(case["image"], case["label"]) for case in group["images"]], tmp_path)
    total = torch.zeros(3, group["num_classes"], dtype=torch.int64)
    for index, case in enumerate(group["images"]):
        image, labels = read_test(split, resized, index)
        assert list(image.shape[1:]) == case["network_input_hw"]
        (found,) = predict([head], image, (labels.shape[0], labels.shape[1]), rules, extract)
        assert float((found == case["argmax"].long()).float().mean()) >= 0.998
        counted = count_pixels(found, labels, group["num_classes"])
        intersection, predicted, labelled = counted
        areas = torch.stack([intersection, predicted + labelled - intersection, predicted, labelled])
        assert int((areas - case["areas"]).abs().max()) <= 0.002 * found.numel()
        total += counted
    metrics, recorded = metrics_of(total, rules, of), group["final_percent_rounded"]
    assert {name: metrics[name] for name in recorded} == pytest.approx(recorded, abs=0.05)


def test_dinov2_head(dinov2: Any) -> None:
    for case in dinov2["cases"]:
        head = head_of(dinov2["state"], RULES["dinov2"])
        maps = [case["features_4_blocks"][dinov2["in_index"]]]
        with torch.no_grad():
            torch.testing.assert_close(head.eval()(maps), case["eval_logits"], atol=1e-5, rtol=0)
            torch.testing.assert_close(head.train()(maps), case["train_logits"], atol=1e-5, rtol=0)
        for name in ("running_mean", "running_var"):
            torch.testing.assert_close(head.norm.get_buffer(name), case[f"train_{name}_after"], atol=1e-5, rtol=0)


def test_dinov2_training(dinov2: Any) -> None:
    run = dinov2["train"]
    rates = rates_of(run, RULES["dinov2"])
    assert rates == pytest.approx(run["lr_per_step"].tolist(), rel=1e-12)
    head, losses, _ = trained(run, RULES["dinov2"], rates)
    assert losses == pytest.approx(run["loss_per_step"].tolist(), abs=1e-5)
    assert_state(head, run["final_state"], 1e-5)


def test_dinov2_sizes_and_padding(dinov2: Any) -> None:
    for case in dinov2["resize_keep_ratio_2048x512"]:
        assert list(scaled_size(tuple(case["in_wh"]), RULES["dinov2"].size, case["ratio"], by_opencv=True)) == case["out_wh"]
    for case in dinov2["center_padding_14"]:
        ones = centre_pad(torch.ones(1, 1, case["size"], case["size"]), 14)[0, 0]
        before = int((ones.sum(0) == 0).int().argmin())
        assert (before, ones.shape[0] - case["size"] - before) == (case["pad_before"], case["pad_after"])
    example = dinov2["center_padding_example"]
    assert torch.equal(centre_pad(example["in"], example["multiple"]), example["out"])


def test_dinov2_sliding_windows(dinov2: Any) -> None:
    group = dinov2["slide"]
    rules = dataclasses.replace(RULES["dinov2"], size=group["crop"], stride=group["stride"])
    extract = extract_by(group["toy_conv_weight"], group["toy_conv_bias"], rules)
    head = head_of(group["head_state"], rules).eval()
    for case in group["cases"]:
        assert len(check_windows(case, head, rules, extract)[0]) == case["num_crops"]
        (found,) = predict([head], case["image"][0], tuple(case["image"].shape[-2:]), rules, extract)
        assert_classes(found, case["logits"][0].argmax(0), case["logits"])


@pytest.mark.parametrize("name", ["voc_like", "ade_like"])
def test_neco(name: str, neco: Any, tmp_path: Path) -> None:
    group = neco[name]
    side, classes, grid = group["mask_size"], group["num_classes"], group["grid"]
    rules = dataclasses.replace(RULES["neco"], size=group["input_size"])
    assert rules.scored_side == side
    whole = dataclasses.replace(rules, scored_side=rules.size)
    of = set_like(ADE20K, classes - 1) if group["ignore_index"] == ADE20K.void else set_like(VOC2012, classes)
    assert len(class_names(rules, of)) == classes
    head = LinearHead(group["head_weight"].shape[1], classes, rules.batch_norm, rules.weight_deviation, seed=0)
    head.load_state_dict({"conv.weight": group["head_weight"], "conv.bias": group["head_bias"]})
    total = torch.zeros(3, classes, dtype=torch.int64)
    for batch in group["batches"]:
        maps = batch["tokens_with_cls_first"][:, 1:].transpose(1, 2).unflatten(2, (grid, grid))
        images_BHW3 = torch.zeros(*batch["labels"].shape, 3, dtype=torch.uint8)
        split = split_of(of, list(zip(images_BHW3, batch["labels"], strict=True)), tmp_path)
        classes_BHW = torch.stack([read_test(split, whole, index)[1] for index in range(len(maps))])
        loss = train_step([head], make_optimizer([head], rules), [[maps]], classes_BHW, [0.0], [None], rules)
        assert float(loss[0]) == pytest.approx(batch["train_loss"], abs=1e-5)
        valid, predictions = [], []
        for index, small in enumerate(batch["labels_100"]):
            image, labels = read_test(split, rules, index)
            assert torch.equal(labels, torch.where(small == group["ignore_index"], VOID, small).to(torch.uint8))
            (found,) = predict([head], image, (side, side), rules, partial(recorded_maps, maps[index : index + 1]))
            total += count_pixels(found, labels, classes)
            valid.append(labels[labels != VOID])
            predictions.append(found[labels != VOID])
        assert torch.equal(torch.cat(valid), batch["valid_gt"])
        assert float((torch.cat(predictions) == batch["valid_pred"].long()).float().mean()) > 0.9999
    intersection, predicted, labelled = total
    for counts, recorded in ((intersection, "tp"), (predicted - intersection, "fp"), (labelled - intersection, "fn")):
        assert counts.tolist() == pytest.approx(group[recorded], abs=2)
    assert metrics_of(total, rules, of)["mIoU"] / 100 == pytest.approx(group["miou"], abs=1e-6)
