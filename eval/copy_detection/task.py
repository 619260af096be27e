"""Copy detection: a descriptor of every image, whitening, and the search for the originals of every changed image.

Shapes: S x S pixels, Q queries.
"""

import time
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from backbones.build import AnyBackbone
from backbones.file import read_backbone_file
from backbones.spec import BackboneSpec
from eval.copy_detection.config import CopyDetectionConfig
from eval.copy_detection.data import ORIGINAL, STRONG, Copydays, check_data
from eval.copy_detection.descriptors import descriptor, precisions, search, whitened, whitening
from eval.copy_detection.protocol import Rules, protocol_of, rules_of
from eval.course import Outcome, run_frozen
from eval.probes.cache import FeatureStore
from eval.probes.features import check_input
from eval.probes.images import all_rows, describe_images, extract_vectors, list_images, normalised, whole_patches
from eval.probes.means import ARTEFACT, ITEMS_FILE, write_items
from eval.record import Evaluation
from eval.result import Metric, Result


def check(config: CopyDetectionConfig, spec: BackboneSpec) -> tuple[Copydays, dict[str, list[str]]]:
    """Find a user's mistakes before anything heavy starts; list the images, and the paths in the further folders by their role."""
    check_input(spec, config.image_size)
    found = check_data(config.data)
    return found, {role: list_images(folder, f"--{role}") for role, folder in _further(config).items()}


def _further(config: CopyDetectionConfig) -> dict[str, Path]:
    given = {"whitening": config.whitening, "distractors": config.distractors}
    return {role: folder for role, folder in given.items() if folder is not None}


def evaluate(config: CopyDetectionConfig) -> Result:
    """Run the task; under torchrun every process makes a share of the descriptors, and their number changes nothing."""
    start = time.monotonic()
    backbone = read_backbone_file(config.backbone)
    found, further = check(config, backbone.spec)
    rules = rules_of(config, backbone.spec, *(len(further.get(role, ())) for role in ("whitening", "distractors")))
    datasets = {role: describe_images(folder, role, further[role]) for role, folder in _further(config).items()}
    protocol = protocol_of(rules, backbone.spec)

    def work(_: Evaluation, network: AnyBackbone, device: torch.device) -> partial[Outcome]:
        def describe(image_13SS: Tensor) -> Tensor:
            return descriptor(network.forward_tokens(whole_patches(image_13SS, network.spec)), rules)[0]

        settings = (rules.image_size, rules.features, rules.patch_power, rules.least_patch_value)
        inputs = {"backbone": backbone.sha256, "descriptor": settings}
        read = partial(read_input, side=rules.image_size)
        extract = partial(extract_vectors, config, device, inputs, rules.image_size, read, describe)
        images = extract([str(path) for paths in found.blocks.values() for path in paths])
        return partial(conclude, config, rules, found, images, {role: extract(paths) for role, paths in further.items()})

    datasets |= {"test": found.describe()}
    return run_frozen("copy_detection", config, backbone, protocol, datasets, start, work)


def read_input(image: Image.Image, side: int) -> Tensor:
    """The network's input [3, side, side]; the aspect is not kept."""
    return normalised(image.resize((side, side), Image.Resampling.BICUBIC))


def conclude(
    config: CopyDetectionConfig, rules: Rules, found: Copydays, images: FeatureStore, others: dict[str, FeatureStore]
) -> Outcome:
    """Search for the originals of every query of every block, of which the originals are one.

    The precisions of the strong block are written: the items of its mean, which alone stands in tables, are its own queries.
    """
    sizes = [len(paths) for paths in found.blocks.values()]
    by_whitening = whitening(all_rows(others["whitening"]), rules) if "whitening" in others else None
    by_block = dict(zip(found.blocks, whitened(all_rows(images), by_whitening).split(sizes), strict=True))
    database = by_block[ORIGINAL]
    if "distractors" in others:
        database = torch.cat([database, whitened(all_rows(others["distractors"]), by_whitening)])
    positives, values = found.positives(), {}
    for block in (STRONG, *(other for other in by_block if other != STRONG)):
        found_Qk = search(by_block[block], database, rules)[1].numpy()
        values[f"mAP {block}"] = precisions(found_Qk, positives[block])
    strong = f"mAP {STRONG}"
    write_items(config.output, [path.name for path in found.blocks[STRONG]], {strong: values[strong]})
    metrics = {name: Metric(value=float(values_Q.mean()), unit="fraction") for name, values_Q in values.items()}
    return Outcome(metrics, {ARTEFACT: ITEMS_FILE}, {})
