"""One vector for each of many images, computed once: which images a folder has, what they become, and the stores of the vectors.

Shapes: B images, D channels, H x W pixels, N = h*w patches.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as F

from backbones.base import Tokens, input_multiple
from backbones.spec import BackboneSpec, ForeignSpec, PlainViTSpec, ResNetSpec
from common.distributed import full_float32, rank, world_size
from common.files import text_sha256
from common.images import IMAGENET_MEAN, IMAGENET_STD, is_image_name, walk_files
from eval.findings import about, refuse
from eval.image_checks import damage_findings, look_at_all
from eval.probes.cache import FeatureStore
from eval.probes.data import read_image
from eval.probes.loading import load_in_order
from eval.progress import Progress
from eval.record import describe_dataset
from eval.result import Dataset

Read = TypeVar("Read")
Describe = Callable[[Tensor], Tensor]
"""The network's input [1, 3, H, W] -> a vector [D]."""

_PIXEL_BYTES = 12  # three channels of float32
_FILES_AT_ONCE = 50_000
CLASS_TOKEN = "CLS token after the final norm"


def list_images(folder: Path, option: str, fits: Callable[[tuple[int, int]], bool] = bool) -> list[str]:
    """The paths of all images in a folder, at any depth, sorted; ValueError if there is none, or if one is damaged or does not fit.

    `fits` says of a (width, height) whether the network can take an image of that size.
    """
    if not folder.is_dir():
        raise ValueError(f"{option} {folder}: no such folder; give one that holds images")
    # A million Path objects would take a gigabyte.
    paths = sorted(f"{parent}/{name}" for parent, names in walk_files(folder) for name in names if is_image_name(name))
    if not paths:
        raise ValueError(f"{option} {folder}: no image in it; give a folder that holds images")
    for start in range(0, len(paths), _FILES_AT_ONCE):
        part = [Path(path) for path in paths[start : start + _FILES_AT_ONCE]]
        facts = list(look_at_all(part, 0, option))
        sizes = {os.path.relpath(fact.path, folder): fact.size for fact in facts if fact.size and not fits(fact.size)}
        small = (f"{name} ({width} x {height})" for name, (width, height) in sizes.items())
        advice = "remove them, or give a larger --image-size"
        text = "images are so small or narrow that a side becomes smaller than a patch"
        refuse([*damage_findings(facts, folder, "repair or remove them"), *about("wrong", text, small, advice)], folder)
    return paths


def describe_images(folder: Path, role: str, paths: Sequence[str]) -> Dataset:
    """The fingerprint of a user's images: their paths below the folder with their sizes in bytes."""
    items = (f"{os.path.relpath(path, folder)} {os.path.getsize(path)}" for path in paths)  # noqa: PTH202 - a million of them
    return describe_dataset(folder, folder.resolve().name, role, items, len(paths))


def files_sha256(paths: Sequence[str]) -> str:
    """Changes with every change of a file, for caches; unlike a fingerprint, it may differ between copies."""
    states = ((path, os.stat(path)) for path in paths)  # noqa: PTH116 - a million of them
    return text_sha256("\n".join(f"{path} {state.st_size} {state.st_mtime_ns}" for path, state in states))


def extract_vectors(
    options: Any,
    device: torch.device,
    inputs: Mapping[str, Any],
    side: int,
    read: Callable[[Image.Image], Tensor],
    describe: Describe,
    paths: Sequence[str],
) -> FeatureStore:
    """Make a vector of every image, each decoded once, in the `cache` of a task's options or beside its `output`.

    `inputs` name what changes the vectors beside the files; no side of what `read` makes is longer than `side` pixels.
    """
    root = options.cache or options.output / "features"
    store = FeatureStore(root, {**inputs, "images": files_sha256(paths)}, len(paths))

    @torch.inference_mode()
    @full_float32()
    def make(image_13HW: Tensor) -> npt.NDArray[np.floating]:
        return describe(image_13HW.to(device, non_blocking=True)).float().cpu().numpy()

    fill_store(store, partial(_read, paths, read), make, _PIXEL_BYTES * side**2, options.workers, device)
    return store


def _read(paths: Sequence[str], read: Callable[[Image.Image], Tensor], index: int) -> Tensor:
    return read(read_image(Path(paths[index])))[None]


def all_rows(store: FeatureStore) -> Tensor:
    return store.rows(torch.arange(store.num_rows))


def fill_store(
    store: FeatureStore,
    read: Callable[[int], Read],
    make: Callable[[Read], npt.NDArray[np.floating]],
    item_bytes: int,
    workers: int,
    device: torch.device,
) -> None:
    """Make the rows that are not there, each from what `read` gives by index; every process makes each world-size-th file."""
    own = [number for number in range(len(store.spans)) if number % world_size() == rank() and not store.has(number)]
    indices = [index for number in own for index in store.spans[number]]
    loaded = load_in_order(read, indices, item_bytes, workers, device)
    quiet = True if rank() or not indices else None  # None: quiet where no terminal is
    with Progress(total=len(indices), unit="image", desc="images", disable=quiet) as bar:
        for number in own:
            rows = []
            for _ in store.spans[number]:
                rows.append(make(next(loaded)))
                bar.update(1)
            store.write(number, np.stack(rows))
    store.require_complete()


def normalised(image: Image.Image) -> Tensor:
    """An image in RGB as the network's input [3, H, W]."""
    image_3HW: Tensor = F.normalize(F.to_tensor(image), list(IMAGENET_MEAN), list(IMAGENET_STD))
    return image_3HW


def whole_patches(images_B3HW: Tensor, spec: BackboneSpec) -> Tensor:
    """The images without the rows and columns at the right and bottom that fill no patch, which a convolution would drop too."""
    if isinstance(spec, ResNetSpec):
        return images_B3HW
    multiple = input_multiple(spec)
    height, width = (side - side % multiple for side in images_B3HW.shape[-2:])
    if not height or not width:
        raise ValueError(
            f"an image of {images_B3HW.shape[-2]} x {images_B3HW.shape[-1]} pixels is smaller than a patch of {multiple}; "
            "give larger images, or a larger --image-size"
        )
    return images_B3HW[..., :height, :width]


def token_of(spec: BackboneSpec) -> str:
    """What stands for a whole image, in words; without a CLS token it is what DINO takes of networks that have none."""
    if isinstance(spec, ForeignSpec):
        return "the network's own pooled features, or CLS token, or the mean of its last map"
    has_token = isinstance(spec, PlainViTSpec) and spec.class_token
    return CLASS_TOKEN if has_token else "mean of the patches or positions (the backbone has no CLS token)"


def image_token(tokens: Tokens) -> Tensor:
    """That token [B, D]; ValueError where it is not finite."""
    found = next(token for token in (tokens.pooled, tokens.cls, tokens.patches.mean(1)) if token is not None)
    if not found.isfinite().all():  # a comparison with NaN would mean nothing
        raise ValueError("the backbone's features are not finite; its weights are damaged")
    return found
