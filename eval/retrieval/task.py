"""Image retrieval: a feature of every image, the ranks of the database for every query, and how good they are.

Shapes: B images, D channels, H x W pixels, Q queries.
"""

import time
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from backbones.build import AnyBackbone
from backbones.file import read_backbone_file
from backbones.spec import BackboneSpec
from eval.course import Outcome, run_frozen
from eval.probes.cache import FeatureStore
from eval.probes.features import check_input, fills_patch
from eval.probes.images import all_rows, describe_images, extract_vectors, image_token, list_images, normalised, whole_patches
from eval.probes.means import ARTEFACT, ITEMS_FILE, write_items
from eval.record import Evaluation
from eval.result import Metric, Result
from eval.retrieval.config import RetrievalConfig
from eval.retrieval.data import Landmarks, check_data
from eval.retrieval.protocol import Rules, protocol_of, rules_of
from eval.retrieval.ranking import query_metrics, rank_images


def check(config: RetrievalConfig, spec: BackboneSpec) -> tuple[Landmarks, list[str]]:
    """Find a user's mistakes before anything heavy starts; list the images, and the paths of the distractors."""
    check_input(spec, None)
    found = check_data(config.data)
    rules = rules_of(config, found.key, spec, 0)
    fits = partial(fills_patch, side=rules.image_size, scale=min(rules.scales), spec=spec)
    return found, list_images(config.distractors, "--distractors", fits) if config.distractors else []


def evaluate(config: RetrievalConfig) -> Result:
    """Run the task; under torchrun every process extracts a share of the features, and their number changes nothing."""
    start = time.monotonic()
    backbone = read_backbone_file(config.backbone)
    found, distractors = check(config, backbone.spec)
    rules = rules_of(config, found.key, backbone.spec, len(distractors))
    datasets = {"test": found.describe()}
    if config.distractors:
        datasets["distractors"] = describe_images(config.distractors, "distractors", distractors)
    protocol = protocol_of(config, found.key, rules, backbone.spec)

    def work(_: Evaluation, network: AnyBackbone, device: torch.device) -> partial[Outcome]:
        inputs = {"backbone": backbone.sha256, "feature": rules.features, "scales": rules.scales, "side": rules.image_size}
        read, make = partial(read_input, side=rules.image_size), partial(describe, network, rules.scales)
        extract = partial(extract_vectors, config, device, inputs, rules.image_size, read, make)
        images = extract([str(path) for path in found.paths])
        return partial(conclude, config, rules, found, images, extract(distractors) if distractors else None)

    return run_frozen("retrieval", config, backbone, protocol, datasets, start, work)


def read_input(image: Image.Image, side: int) -> Tensor:
    """The network's input [3, H, W], of which no side is longer than this one; smaller images stay as they are."""
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return normalised(image)


def describe(network: AnyBackbone, scales: Sequence[float], image_13HW: Tensor) -> Tensor:
    """The feature [D] of an image: the mean over scales, not yet normalised."""
    inputs = (whole_patches(input_13HW, network.spec) for input_13HW in scaled_inputs(image_13HW, scales))
    return torch.cat([image_token(network.forward_tokens(input_13HW)) for input_13HW in inputs]).mean(0)


def scaled_inputs(image_13HW: Tensor, scales: Sequence[float]) -> list[Tensor]:
    """The input at every scale; its sides are rounded down."""
    return [
        image_13HW if scale == 1 else F.interpolate(image_13HW, scale_factor=scale, mode="bilinear", align_corners=False)
        for scale in scales
    ]


def conclude(
    config: RetrievalConfig, rules: Rules, found: Landmarks, images: FeatureStore, distractors: FeatureStore | None
) -> Outcome:
    """Rank the images for every query, with one file of distractors at a time, and write the metrics of the queries."""
    database, queries = F.normalize(all_rows(images), dim=1).split([len(found.images), len(found.queries)])
    spans = distractors.spans if distractors else []
    blocks = (F.normalize(distractors.rows(torch.arange(span.start, span.stop)), dim=1) for span in spans if distractors)
    values = query_metrics(rank_images(database, queries, blocks), found.sorts, rules.ranks)
    write_items(config.output, found.query_items, values)
    metrics = {name: Metric(value=float(np.nanmean(values_Q))) for name, values_Q in values.items()}
    return Outcome(metrics, {ARTEFACT: ITEMS_FILE}, {})
