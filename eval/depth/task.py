"""Depth: train a linear layer on a frozen backbone's patches, predict the depth of the test images, and score and draw it.

Shapes: N test images, H x W pixels.
"""

import math
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from backbones.build import AnyBackbone
from backbones.file import read_backbone_file
from backbones.spec import BackboneSpec
from common.distributed import full_float32
from common.files import write_atomically
from common.images import evenly
from eval.course import Outcome, run_frozen
from eval.depth.config import DepthConfig
from eval.depth.data import DepthSplit, Pair, check_data
from eval.depth.head import expected_depth, make_head, predict
from eval.depth.items import ARTEFACT
from eval.depth.metrics import HIGHER_IS_BETTER, UNITS, counted_pixels, image_metrics
from eval.depth.protocol import Rules, protocol_of, rules_of
from eval.depth.training import read_batch, train_head
from eval.depth.transforms import draw_changes, normalised, read_tensors
from eval.probes.data import read_image
from eval.probes.dense import enlarged
from eval.probes.features import FrozenFeatures, centre_pad, check_input
from eval.probes.heads import LinearHead
from eval.probes.loading import over_images
from eval.probes.training import training_batches
from eval.record import Evaluation
from eval.result import Metric, Result

HEAD_FILE = "head.pth"
METRICS_FILE = "image_metrics.npz"
PREDICTIONS_FOLDER = "predictions"

_LARGEST_PAIR = 1 << 24  # bytes of an image and its depth, read


def check(config: DepthConfig, spec: BackboneSpec) -> dict[str, DepthSplit]:
    """Find a user's mistakes before anything heavy starts, and list the data."""
    check_input(spec, None)
    splits = check_data(config.data)
    for size in {read_size(pair.image) for pair in splits["train"].pairs.values()}:
        draw_changes(rules_of(config), *size, np.random.default_rng(0))  # refuses a crop that does not fit
    return splits


def evaluate(config: DepthConfig) -> Result:
    """Run the task, or what is left of it; a finished task with the same inputs is only read.

    Under torchrun every process makes the features of a part of every batch and predicts a share of the test images; the outcome does
    not depend on their number.
    """
    start = time.monotonic()
    backbone = read_backbone_file(config.backbone)
    splits = check(config, backbone.spec)
    datasets = {role: split.describe() for role, split in splits.items()}

    def work(evaluation: Evaluation, network: AnyBackbone, device: torch.device) -> partial[Outcome]:
        rules = rules_of(config)
        half = torch.bfloat16 if config.precision == "bfloat16" else None
        features = FrozenFeatures(network, device, autocast=half)
        head = make_head(features.channels[0], rules, config.seed).to(device)
        pairs = tuple(splits["train"].pairs.values())
        batches = partial(
            training_batches,
            total=rules.iterations,
            num_images=len(pairs),
            batch_size=rules.batch_size,
            seed=config.seed,
            read=partial(read_batch, pairs, rules, config.seed),
            image_bytes=16 * math.prod(rules.crop),  # three channels and the depth, of float32
            workers=config.workers,
            extract=lambda images_B3HW: {"last": features(centre_pad(images_B3HW, features.multiple))},
            device=device,
        )
        train_head(head, batches, config, rules, config.output / HEAD_FILE, evaluation.inputs_sha256)
        return partial(_conclude, config, splits["test"], test_head(config, rules, splits["test"], head, features))

    return run_frozen("depth", config, backbone, protocol_of(config, backbone.spec), datasets, start, work)


def read_size(path: Path) -> tuple[int, int]:
    """(height, width) by the image's header."""
    with Image.open(path) as image:
        return image.height, image.width


@torch.inference_mode()
@full_float32()
def test_head(
    config: DepthConfig, rules: Rules, split: DepthSplit, head: LinearHead, features: FrozenFeatures
) -> dict[str, dict[str, float]]:
    """Name -> metrics of every test image, each process a share of them; and drawings of some."""
    head.eval()
    names, pairs = list(split.pairs), list(split.pairs.values())
    drawn = drawn_images(config, split)

    def estimate(images_13HW: Tensor) -> Tensor:
        return expected_depth(head(features(images_13HW)), rules)

    def score(found: tuple[int, Tensor, Tensor]) -> dict[str, float]:
        index, image_3HW, truth_1HW = found
        depth_11hw = predict(estimate, normalised(image_3HW)[None], features.multiple, rules.test_flip)
        truth_HW = truth_1HW[0].to(features.device)
        depth_HW = enlarged(depth_11hw, truth_HW.shape)[0, 0]
        if name := drawn.get(names[index]):
            panels = np.asarray(read_image(pairs[index].image)), truth_HW.cpu().numpy(), depth_HW.cpu().numpy()
            write_atomically(config.output / PREDICTIONS_FOLDER / name, partial(draw, *panels))
        return image_metrics(depth_HW, truth_HW, counted_pixels(truth_HW, rules), rules)

    metrics = over_images(len(pairs), partial(_read_numbered, pairs), score, _LARGEST_PAIR, config.workers, features.device)
    return dict(zip(names, metrics, strict=True))


def _read_numbered(pairs: Sequence[Pair], index: int) -> tuple[int, Tensor, Tensor]:
    return index, *read_tensors(pairs[index])


def drawn_images(config: DepthConfig, split: DepthSplit) -> dict[str, str]:
    """Names of the test images that are drawn -> name of the drawing."""
    return {name: f"{number:03}.png" for number, name in enumerate(evenly(list(split.pairs), config.draw_images))}


def draw(
    image_HW3: npt.NDArray[np.uint8], truth_HW: npt.NDArray[np.float32], depth_HW: npt.NDArray[np.float32], path: Path
) -> None:
    """An image, its true and its predicted depth beside each other, red near and blue far; black where nothing was measured."""
    from matplotlib import colormaps  # slow to load

    farthest = float(truth_HW.max())
    relative = [np.clip(depth_HW / farthest, 0, 1) for depth_HW in (truth_HW, depth_HW)]
    truth_HW3, depth_HW3 = ((255 * colormaps["turbo_r"](values_HW)[..., :3]).astype(np.uint8) for values_HW in relative)
    truth_HW3[truth_HW == 0] = 0
    Image.fromarray(np.concatenate([image_HW3, truth_HW3, depth_HW3], axis=1)).save(path)


def means(tested: dict[str, dict[str, float]]) -> dict[str, Metric]:
    """The mean of every metric over the images."""
    values = {name: float(np.mean([metrics[name] for metrics in tested.values()])) for name in UNITS}
    return {
        name: Metric(value=values[name], unit=unit, higher_is_better=name in HIGHER_IS_BETTER) for name, unit in UNITS.items()
    }


def _conclude(config: DepthConfig, split: DepthSplit, tested: dict[str, dict[str, float]]) -> Outcome:
    arrays: dict[str, Any] = {name: np.array([metrics[name] for metrics in tested.values()]) for name in UNITS}
    write_atomically(config.output / METRICS_FILE, partial(np.savez, names=np.array(list(tested)), **arrays))
    drawings = {f"prediction on {name}": f"{PREDICTIONS_FOLDER}/{file}" for name, file in drawn_images(config, split).items()}
    return Outcome(means(tested), {"head": HEAD_FILE, ARTEFACT: METRICS_FILE} | drawings, {})
