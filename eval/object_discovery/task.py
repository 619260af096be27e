"""Object discovery: a box in every image, the share of images in which it finds an object, and drawings.

Shapes: B images, H x W pixels, T tokens, N patches, D channels.
"""

import json
import time
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from backbones.build import AnyBackbone
from backbones.file import read_backbone_file
from backbones.spec import BackboneSpec
from backbones.vit import ViT
from common.distributed import full_float32
from common.files import write_atomically, write_text_atomically
from common.images import evenly
from eval.course import Outcome, run_frozen
from eval.object_discovery.config import ObjectDiscoveryConfig
from eval.object_discovery.data import Boxes, BoxSet, check_data
from eval.object_discovery.methods import find_box
from eval.object_discovery.protocol import Rules, check_backbone, protocol_of, rules_of
from eval.object_discovery.scores import is_hit
from eval.probes.cache import FeatureStore
from eval.probes.data import read_image
from eval.probes.images import all_rows, fill_store, normalised
from eval.probes.means import ARTEFACT, ITEMS_FILE, write_items
from eval.record import Evaluation
from eval.result import Metric, Result

BOXES_FILE, PREDICTIONS_FOLDER = "boxes.json", "predictions"

_IMAGES_PER_FILE = 64
_LARGEST_IMAGE = 1 << 23  # bytes, read


def check(config: ObjectDiscoveryConfig, spec: BackboneSpec) -> BoxSet:
    """Find a user's mistakes before anything heavy starts, and list the data."""
    check_backbone(spec)
    return check_data(config.data, config.no_hard)


def evaluate(config: ObjectDiscoveryConfig) -> Result:
    """Run the task; under torchrun every process finds a share of the boxes, and their number changes nothing."""
    start = time.monotonic()
    backbone = read_backbone_file(config.backbone)
    found, rules = check(config, backbone.spec), rules_of(config)

    def work(evaluation: Evaluation, network: AnyBackbone, device: torch.device) -> partial[Outcome]:
        assert isinstance(network, ViT)
        inputs = {"inputs": evaluation.inputs_sha256}
        store = FeatureStore(config.output / "parts", inputs, len(found.images), (4,), np.float64, _IMAGES_PER_FILE)
        read = partial(_read, [image.path for image in found.images.values()])
        find = partial(find_in_image, KeyExtractor(network, device), rules)
        fill_store(store, read, find, _LARGEST_IMAGE, config.workers, device)
        return partial(conclude, config, found, store, rules.least_iou)

    datasets = {"test": found.describe()}
    return run_frozen("object_discovery", config, backbone, protocol_of(config), datasets, start, work)


class KeyExtractor:
    """The keys of a ViT's last block, of all heads side by side: what its layer of queries, keys and values gives, seen by a hook."""

    def __init__(self, network: ViT, device: torch.device) -> None:
        self.network = network.to(device).eval()
        self.device = device
        self._last_BT3D = torch.empty(0)
        network.blocks[-1].attn.qkv.register_forward_hook(self._keep)

    def _keep(self, _layer: object, _inputs: object, output_BT3D: Tensor) -> None:
        self._last_BT3D = output_BT3D

    @torch.inference_mode()
    @full_float32()
    def __call__(self, images_13HW: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Keys of the patches [N, D] on the CPU, and their grid."""
        tokens = self.network.forward_tokens(images_13HW.to(self.device))
        _, keys_BTD, _ = self._last_BT3D.chunk(3, dim=2)
        keys_ND = keys_BTD[0, self.network.num_prefix_tokens :].float().cpu()
        if not keys_ND.isfinite().all():
            raise ValueError("the backbone's features are not finite; its weights are damaged")
        return keys_ND, tokens.grid


def _read(paths: list[Path], index: int) -> Tensor:
    return normalised(read_image(paths[index]))[None]


def padded(image_13HW: Tensor, patch: int) -> Tensor:
    """The normalised image with zeros at the right and bottom, up to whole patches."""
    height, width = image_13HW.shape[-2:]
    return F.pad(image_13HW, (0, -width % patch, 0, -height % patch))


def find_in_image(extract: KeyExtractor, rules: Rules, image_13HW: Tensor) -> npt.NDArray[np.floating]:
    """The box [4] of an image."""
    patch = extract.network.spec.patch_size
    height, width = image_13HW.shape[-2:]
    keys_ND, grid = extract(padded(image_13HW, patch))
    return find_box(keys_ND, grid, patch, (height, width), rules).astype(np.float64)


def conclude(config: ObjectDiscoveryConfig, found: BoxSet, store: FeatureStore, least_iou: float) -> Outcome:
    """Write the boxes, what they find, and drawings of some."""
    boxes = dict(zip(found.images, all_rows(store).long().numpy(), strict=True))
    listed = {name: box.tolist() for name, box in boxes.items()}
    write_text_atomically(config.output / BOXES_FILE, json.dumps({"boxes": listed}, indent=1) + "\n")
    hits = np.array([100.0 * is_hit(boxes[name], image.boxes, least_iou) for name, image in found.images.items()])
    write_items(config.output, list(boxes), {"CorLoc": hits})
    artefacts = {"boxes": BOXES_FILE, ARTEFACT: ITEMS_FILE}
    for number, name in enumerate(evenly(list(boxes), config.draw_images)):
        file, image = f"{PREDICTIONS_FOLDER}/{number:03}.png", found.images[name]
        write_atomically(config.output / file, draw(image.path, image.boxes, boxes[name]).save)
        artefacts[f"prediction on {name}"] = file
    return Outcome({"CorLoc": Metric(value=float(hits.mean()))}, artefacts, {})


def draw(path: Path, truth: Boxes, box: Boxes) -> Image.Image:
    """An image with the true boxes in green and the found one in red."""
    image = read_image(path)
    pen = ImageDraw.Draw(image)
    for colour, ends in [*(("lime", ends) for ends in truth), ("red", box)]:
        left, top, right, bottom = ends.tolist()
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=2)
    return image
