"""Linear segmentation: train heads on frozen features, test them, and record mIoU, aAcc and mAcc.

Shapes: B images, N test images, H x W pixels, K classes. The 3 of a count tensor: intersection, predicted, labelled pixels.
"""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from backbones.build import AnyBackbone
from backbones.file import read_backbone_file
from backbones.spec import BackboneSpec
from common.distributed import full_float32, rank
from common.files import write_atomically
from common.images import IMAGENET_STD
from eval.course import Outcome, run_frozen
from eval.findings import merged, refuse
from eval.linear_segmentation import protocol
from eval.linear_segmentation.config import LinearSegmentationConfig
from eval.linear_segmentation.protocol import Rules, rules_of
from eval.linear_segmentation.training import HEADS_FILE, train_heads, trials_of
from eval.linear_segmentation.transforms import PIXEL_BYTES, read_batch, read_test
from eval.probes.data import LabelledSet, Split, check_splits
from eval.probes.dense import joined_windows, predicted_classes, window_boxes
from eval.probes.features import FrozenFeatures, centre_pad
from eval.probes.heads import LinearHead
from eval.probes.items import ARTEFACT
from eval.probes.loading import over_images
from eval.probes.pictures import draw_pictures, label_panel, rgb_panel, sheet
from eval.probes.pixels import compute_metrics, count_pixels, further_metrics
from eval.probes.sets import find_set
from eval.probes.training import Maps, training_batches
from eval.record import Evaluation
from eval.result import Metric, Result

Extract = Callable[[Tensor], Maps]
LARGEST_TEST_PAIR = 1 << 24  # bytes of an image and its labels, which are as large as the file is


def check(config: LinearSegmentationConfig, spec: BackboneSpec) -> tuple[Split, Split]:
    """Find a user's mistakes before anything heavy starts, and list the images to train on and to test."""
    protocol.check_rules(rules_of(config), spec)
    found = find_set(config.data)
    train = config.train_split or protocol.published_split(config, found)
    if train not in found.sizes or train == found.test:
        known = ", ".join(name for name in found.sizes if name != found.test)
        raise ValueError(f"train_split={train}: {found.name} has {known}")
    splits = check_splits(found, config.data, [train, found.test])
    refuse(merged(finding for split in splits.values() for finding in split.check_files()), config.data)
    return splits[train], splits[found.test]


def evaluate(config: LinearSegmentationConfig) -> Result:
    """Run the task, or what is left of it; a finished task with the same inputs is only read."""
    start = time.monotonic()
    backbone = read_backbone_file(config.backbone)
    train, test = check(config, backbone.spec)
    used = protocol.protocol_of(config, test.of, train.name, backbone.spec)
    datasets = {"train": train.describe(), "test": test.describe()}
    return run_frozen("linear_segmentation", config, backbone, used, datasets, start, partial(_train, train, test))


@full_float32()
def _train(
    train: Split, test: Split, evaluation: Evaluation, network: AnyBackbone, device: torch.device
) -> Callable[[], Outcome]:
    """Train and test every head, and draw predictions of the first one."""
    config: LinearSegmentationConfig = evaluation.options
    rules = rules_of(config)
    layers = {layer: protocol.blocks_of(layer, network.spec) for layer in rules.layers}
    autocast = torch.bfloat16 if rules.precision == "bfloat16" else None
    blocks = sorted({block for listed in layers.values() for block in listed})
    extract = partial(extract_maps, FrozenFeatures(network, device, blocks, rules.final_norm, autocast), rules)
    batches = partial(
        training_batches,
        total=protocol.updates(rules, len(train.pairs))[0],
        num_images=len(train.pairs),
        batch_size=rules.batch_size,
        seed=config.seed,
        read=partial(read_batch, train, rules, config.seed),
        image_bytes=rules.size**2 * PIXEL_BYTES,
        workers=config.workers,
        extract=extract,
        device=device,
    )
    widths = {layer: sum(network.map_channels([block])[0] for block in listed) for layer, listed in layers.items()}
    evaluate_heads = partial(count_all, config=config, rules=rules, split=test, extract=extract)
    classes = len(class_names(rules, test.of))
    outcomes = train_heads(evaluation, rules, batches, widths, classes, len(train.pairs), evaluate_heads, device)
    head = LinearHead(widths[rules.layers[0]], classes, rules.batch_norm, rules.weight_deviation, config.seed)
    head.load_state_dict(outcomes[0]["weights"])
    draw = partial(map, partial(draw_picture, head.to(device).eval(), test, rules, extract))
    count = 0 if rank() else config.draw_images
    pictures = draw_pictures(list(test.pairs), count, config.output / "predictions", draw)
    return partial(_conclude, config, test, outcomes, pictures)


def _conclude(
    config: LinearSegmentationConfig, test: Split, outcomes: Sequence[dict[str, Any]], pictures: dict[str, str]
) -> Outcome:
    """The result of the heads as `train_heads` returns them, and the counts of the first one in a file."""
    arrays: dict[str, Any] = {"names": np.array(list(test.pairs)), "counts": outcomes[0]["counts"].numpy()}
    write_atomically(config.output / f"{ARTEFACT}.npz", partial(np.savez_compressed, **arrays))
    metrics, breakdown = summary(outcomes, rules_of(config), test.of)
    return Outcome(metrics, {"heads": HEADS_FILE, ARTEFACT: f"{ARTEFACT}.npz", **pictures}, breakdown)


def draw_picture(head: nn.Module, split: Split, rules: Rules, extract: Extract, index: int) -> Image.Image:
    """A test image as the network sees it, its truth and a prediction beside each other."""
    image_3HW, labels_HW = read_test(split, rules, index)
    (predicted_HW,) = predict([head], image_3HW, (labels_HW.shape[0], labels_HW.shape[1]), rules, extract)
    labels = [label_panel(found.cpu(), len(class_names(rules, split.of))) for found in (labels_HW, predicted_HW)]
    return sheet([rgb_panel(image_3HW, IMAGENET_STD), *labels], 3, (image_3HW.shape[2], image_3HW.shape[1]))


def class_names(rules: Rules, found: LabelledSet) -> tuple[str, ...]:
    return (("unlabelled",) if protocol.has_unlabelled_class(rules, found) else ()) + found.classes


def extract_maps(features: FrozenFeatures, rules: Rules, images_B3HW: Tensor) -> Maps:
    """The maps of every layer; sides that are no multiple of the patch are cut or padded as the protocol does it."""
    if rules.patches == "padded":
        images_B3HW = centre_pad(images_B3HW, features.multiple)
    elif rules.patches == "cut":
        height, width = (side - side % features.multiple for side in images_B3HW.shape[-2:])
        images_B3HW = images_B3HW[..., :height, :width]
    maps = dict(zip(features.blocks, features(images_B3HW), strict=True))
    return {layer: [maps[block] for block in protocol.blocks_of(layer, features.backbone.spec)] for layer in rules.layers}


@torch.no_grad()
def predict(
    heads: Sequence[nn.Module], image_3HW: Tensor, size: tuple[int, int], rules: Rules, extract: Extract
) -> list[Tensor]:
    """The classes [H, W] by every head of a sweep, or the first ones, at a size (height, width)."""
    height, width = image_3HW.shape[1:]
    boxes = [(0, height, 0, width)]
    if rules.stride is not None:
        boxes = window_boxes(height, width, rules.size, rules.stride, rules.smaller_windows)
    windows_B3HW = torch.stack([image_3HW[:, top:bottom, left:right] for top, bottom, left, right in boxes])
    parts = [extract(part) for part in windows_B3HW.split(rules.batch_size)]
    predictions = []
    for head, trial in zip(heads, trials_of(rules), strict=False):
        logits = [logits_1Khw for maps in parts for logits_1Khw in head(maps[trial.layer]).split(1)]
        whole_1KHW = logits[0] if rules.stride is None else joined_windows(logits, boxes, (height, width))
        predictions.append(predicted_classes(whole_1KHW, size))
    return predictions


def count_all(
    heads: Sequence[nn.Module], config: LinearSegmentationConfig, rules: Rules, split: Split, extract: Extract
) -> list[Tensor]:
    """The counts [N, 3, K] of every head on the whole split, int32, on every process."""
    device = next(heads[0].parameters()).device

    def count(pair: tuple[Tensor, Tensor]) -> Tensor:
        image_3HW, labels_HW = pair
        size = (labels_HW.shape[0], labels_HW.shape[1])
        found = predict(heads, image_3HW, size, rules, extract)
        labels, classes = labels_HW.to(device), len(class_names(rules, split.of))
        return torch.stack([count_pixels(predicted_HW, labels, classes) for predicted_HW in found]).int()

    counts = over_images(len(split.pairs), partial(read_test, split, rules), count, LARGEST_TEST_PAIR, config.workers, device)
    return list(torch.stack(counts).unbind(dim=1))


def summary(
    outcomes: Sequence[dict[str, Any]], rules: Rules, found: LabelledSet
) -> tuple[dict[str, Metric], dict[str, dict[str, float]]]:
    """The first head's metrics in percent, the mIoU of the others, and that of the evaluation that the protocol does not select."""
    counts_3K = outcomes[0]["counts"].sum(dim=0, dtype=torch.int64)
    metrics, per_class = compute_metrics(counts_3K, rules.absent_classes == "zero")
    metrics |= {name: value for name, value in further_metrics(counts_3K).items() if not math.isnan(value)}
    best = [max(miou for _, miou in outcome["history"]) for outcome in outcomes]
    last = [outcome["history"][-1][1] for outcome in outcomes]
    selected, other, name = (best, last, "last") if rules.selection == "best" else (last, best, "best")
    metrics[f"mIoU, {name} evaluation"] = other[0]
    metrics |= {f"mIoU ({trial})": miou for trial, miou in zip(trials_of(rules)[1:], selected[1:], strict=True)}
    named = dict(zip(class_names(rules, found), per_class, strict=True))
    return {name: Metric(value=value) for name, value in metrics.items()}, named
