"""From labelled images to stored feature vectors: decoding, the network, files that many processes write and any run reads.

Shapes: N images of a split, B of a batch, H x W pixels, D channels, L features of the probe.

Source of the transforms: `eval_knn.py` and `eval_linear.py` of facebookresearch/dino 7c446df.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode, RandomHorizontalFlip, RandomResizedCrop
from torchvision.transforms import functional as F
from tqdm import tqdm

from backbones.build import AnyBackbone
from common.distributed import full_float32, rank, wait_for_all, world_size
from common.files import text_sha256, write_atomically, write_text_atomically
from common.images import IMAGENET_MEAN, IMAGENET_STD
from eval.classification.config import ClassificationConfig
from eval.classification.data import LabelledImages, Splits
from eval.classification.protocol import Representation

KNN, LINEAR = "knn", "linear"
"""Names of the two feature vectors of an image."""

STORE_VERSION = 1
"""Grows whenever a change can change a feature."""

ROWS_PER_FILE = 2048
_DESCRIPTION_FILE = "complete.json"

Transform = Callable[[Image.Image, int], Tensor]
"""RGB image and its place in the split -> network input [3, H, W]; goes to the loader's worker processes."""


def centre_crop(image: Image.Image, index: int, resize: int, crop: int) -> Tensor:
    """The shorter side resized to `resize` pixels by bicubic interpolation, then the middle `crop` x `crop`."""
    del index
    resized = F.resize(image, resize, interpolation=InterpolationMode.BICUBIC)
    return _normalised(F.center_crop(resized, [crop, crop]))


def random_crop_and_flip(image: Image.Image, index: int, crop: int, seed: int, epoch: int) -> Tensor:
    """A random part of the image resized by bilinear interpolation, mirrored half of the time: torchvision's defaults.

    The parameters are drawn per image and epoch, so they are the same in any number of processes and after a continuation.
    """
    digest = hashlib.sha256(f"{seed} {epoch} {index}".encode()).digest()
    # torchvision draws from the global generator only; other users of it must not notice.
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(int.from_bytes(digest[:6], "big"))
    try:
        return _normalised(RandomHorizontalFlip()(RandomResizedCrop(crop)(image)))
    finally:
        torch.default_generator.set_state(state)


def _normalised(image: Image.Image) -> Tensor:
    normalised: Tensor = F.normalize(F.to_tensor(image), list(IMAGENET_MEAN), list(IMAGENET_STD))
    return normalised


class FeatureExtractor:
    """A backbone that answers with feature vectors."""

    def __init__(self, backbone: AnyBackbone, representation: Representation, device: torch.device) -> None:
        self.backbone = backbone.to(device).eval()
        self.representation = representation
        self.device = device
        self._earlier: list[Tensor] = []
        if representation.blocks > 1:
            # `forward_tokens` gives the last block only; hooks see the others' outputs on the same way to it.
            for block in list(self.backbone.get_submodule("blocks").children())[-representation.blocks : -1]:
                block.register_forward_hook(self._keep)

    def _keep(self, block: nn.Module, inputs: Any, tokens_BND: Tensor) -> None:
        del block, inputs
        self._earlier.append(tokens_BND)

    @torch.inference_mode()
    @full_float32()
    def __call__(self, images_B3HW: Tensor) -> dict[str, Tensor]:
        """Feature vectors of normalised images: `knn` [B, D] and `linear` [B, L], float32, on the CPU.

        Refuses features that are not finite: comparisons with NaN would give metrics that mean nothing.
        """
        self._earlier.clear()
        tokens = self.backbone.forward_tokens(images_B3HW.to(self.device, non_blocking=True))
        token_BD = tokens.patches.mean(1) if tokens.cls is None else tokens.cls
        parts = [*map(self._token_of_block, self._earlier), token_BD]
        if self.representation.mean_patch:
            parts.append(tokens.patches.mean(1))
        features = {KNN: token_BD.float().cpu(), LINEAR: torch.cat(parts, dim=1).float().cpu()}
        if not torch.isfinite(features[LINEAR]).all():
            raise ValueError("the backbone's features are not finite; its weights are damaged")
        return features

    def _token_of_block(self, tokens_BND: Tensor) -> Tensor:
        normed_BND: Tensor = self.backbone.get_submodule("norm")(tokens_BND)
        prefix = int(getattr(self.backbone, "num_prefix_tokens"))  # noqa: B009 - of ViTs, the only ones with several blocks
        return normed_BND[:, 0] if self.representation.class_token else normed_BND[:, prefix:].mean(1)


class FeatureStore:
    """Rows [N, D] in files of `ROWS_PER_FILE`, in a folder whose name is the digest of everything that determines them.

    So a changed input leads to another folder. Each file is whole or absent; the description is written after the last of them.
    """

    def __init__(self, root: Path, inputs: Mapping[str, Any], num_rows: int) -> None:
        """A store of N rows in the folder of all stores, which need not exist yet; `inputs` must be JSON-ready."""
        self.description = json.dumps({"version": STORE_VERSION, "rows": num_rows, **inputs}, sort_keys=True, indent=1) + "\n"
        self.folder = root / text_sha256(self.description)[:32]
        self.spans = [range(start, min(start + ROWS_PER_FILE, num_rows)) for start in range(0, num_rows, ROWS_PER_FILE)]
        """The rows of each file."""

    def is_complete(self) -> bool:
        """Whether every row is there."""
        path = self.folder / _DESCRIPTION_FILE
        return path.is_file() and path.read_text(encoding="utf-8") == self.description

    def has(self, number: int) -> bool:
        return self._path(number).is_file()

    def write(self, number: int, rows: npt.NDArray[np.float32]) -> None:
        assert len(rows) == len(self.spans[number])
        write_atomically(self._path(number), lambda temporary: np.save(temporary, rows))

    def finish(self) -> None:
        """Declare the store complete; by one process, when all have written."""
        if absent := sum(not self.has(number) for number in range(len(self.spans))):
            raise ValueError(f"{self.folder}: {absent} files of features are not there; several machines must share --cache")
        write_text_atomically(self.folder / _DESCRIPTION_FILE, self.description)

    def blocks(self, rows_per_block: int) -> Iterator[Tensor]:
        """Consecutive blocks of whole files, at least `rows_per_block` rows each but for the last one."""
        numbers = range(len(self.spans))
        step = -(-rows_per_block // ROWS_PER_FILE)
        for first in numbers[::step]:
            yield torch.from_numpy(np.concatenate([self._map(number) for number in numbers[first : first + step]]))

    def rows(self, indices: Tensor) -> Tensor:
        """Rows by index [R], int64 on the CPU, in any order."""
        numbers, places = np.divmod(indices.numpy(), ROWS_PER_FILE)
        result = np.empty((len(indices), self._map(0).shape[1]), dtype=np.float32)
        for number in np.unique(numbers):
            wanted = numbers == number
            result[wanted] = self._map(int(number))[places[wanted]]
        return torch.from_numpy(result)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.npy"

    def _map(self, number: int) -> npt.NDArray[np.float32]:
        rows: npt.NDArray[np.float32] = np.load(self._path(number), mmap_mode="r")
        return rows


class _Batches(Dataset[Tensor | ValueError]):
    """Batches of the network's input, for a DataLoader, which would bury an exception under its workers' tracebacks."""

    def __init__(self, images: LabelledImages, transform: Transform) -> None:
        self.source, self.transform = images.source, transform

    def __getitem__(self, indices: Sequence[int]) -> Tensor | ValueError:
        try:
            return torch.stack([self.transform(self.source[index], index) for index in indices])
        except ValueError as error:
            return error


def load_batches(
    images: LabelledImages, transform: Transform, batches: Sequence[Sequence[int]], workers: int, device: torch.device
) -> Iterator[Tensor]:
    """Decode batches of images, given by their indices, none of them empty, in so many processes (0: this one).

    Yields [B, 3, H, W] for each, on the CPU, ready to be sent to `device`.

    Raises:
        ValueError: If an image cannot be decoded; names it.
    """
    loader: DataLoader[Tensor | ValueError] = DataLoader(
        _Batches(images, transform), batch_size=None, sampler=batches, num_workers=workers, pin_memory=device.type == "cuda"
    )
    for batch in loader:
        if isinstance(batch, ValueError):
            raise batch
        yield batch


def extract_features(
    config: ClassificationConfig, splits: Splits, backbone_sha256: str, extractor: FeatureExtractor
) -> tuple[dict[str, FeatureStore], dict[str, FeatureStore]]:
    """Make the features that the run's classifiers need, each image decoded once, or find them in the cache.

    Returns stores of the training and of the test images by the name of the feature vector; without `linear` for training images that
    the probe augments.
    """
    transform = partial(centre_crop, resize=config.resize, crop=config.crop)
    words = extractor.representation.describe()

    def filled(images: LabelledImages, names: Sequence[str]) -> dict[str, FeatureStore]:
        common = {
            "backbone": backbone_sha256,
            "images": images.content_sha256,
            "transform": {"name": "centre crop", **transform.keywords},
        }
        inputs = {name: {**common, "feature": name, "representation": words[f"{name}_features"]} for name in names}
        root = config.cache or config.output / "features"
        stores = {name: FeatureStore(root, inputs[name], len(images)) for name in names}
        _fill(stores, images, transform, extractor, config)
        return stores

    names = [name for name in (KNN, LINEAR) if name in config.classifiers]
    return filled(splits.train, [name for name in names if name == KNN or not config.augment]), filled(splits.test, names)


def _fill(
    stores: dict[str, FeatureStore],
    images: LabelledImages,
    transform: Transform,
    extractor: FeatureExtractor,
    config: ClassificationConfig,
) -> None:
    """Fill the stores of one split; what is there already stays.

    Every process makes each world-size-th file, so the files do not depend on the number of processes.
    """
    missing = [store for store in stores.values() if not store.is_complete()]
    if not missing:
        return
    own = range(rank(), len(missing[0].spans), world_size())
    spans = {number: missing[0].spans[number] for number in own if not all(store.has(number) for store in missing)}
    size = config.extraction_batch_size
    batches = [span[start : start + size] for span in spans.values() for start in range(0, len(span), size)]
    loaded = load_batches(images, transform, batches, config.workers, extractor.device)
    what = f"features of {images.fingerprint.split}"
    with tqdm(total=sum(map(len, batches)), unit="image", desc=what, disable=None if rank() == 0 else True) as bar:
        for number, span in spans.items():
            parts = []
            for _ in range(0, len(span), size):
                parts.append(extractor(next(loaded)))
                bar.update(len(parts[-1][KNN]))
            for name, store in stores.items():
                if not store.has(number):
                    store.write(number, torch.cat([features[name] for features in parts]).numpy())
    wait_for_all()
    if rank() == 0:
        for store in missing:
            store.finish()
    wait_for_all()
