"""From labelled images to stored feature vectors: decoding, the network, and the stores that it fills.

Shapes: N images of a split, B of a batch, H x W pixels, D channels, L features of the probe.

Source of the transforms: `eval_knn.py` and `eval_linear.py` of facebookresearch/dino 7c446df.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import InterpolationMode, RandomHorizontalFlip, RandomResizedCrop
from torchvision.transforms import functional as F

from backbones.build import AnyBackbone
from common.distributed import full_float32, rank, world_size
from common.images import IMAGENET_MEAN, IMAGENET_STD
from common.launch import loader_processes
from eval.classification.config import ClassificationConfig
from eval.classification.data import LabelledImages, Source, read_image
from eval.classification.protocol import Representation
from eval.probes.cache import ROWS_PER_FILE, FeatureStore
from eval.progress import Progress

KNN, LINEAR = "knn", "linear"  # the two feature vectors of an image, named after the classifiers that take them

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
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int.from_bytes(digest[:6], "big"))
        return _normalised(RandomHorizontalFlip()(RandomResizedCrop(crop)(image)))


def _normalised(image: Image.Image) -> Tensor:
    normalised: Tensor = F.normalize(F.to_tensor(image), list(IMAGENET_MEAN), list(IMAGENET_STD))
    return normalised


class FeatureExtractor:
    def __init__(self, backbone: AnyBackbone, representation: Representation, device: torch.device) -> None:
        self.backbone = backbone.to(device).eval()
        self.representation = representation
        self.device = device
        self._earlier: list[Tensor] = []
        if representation.blocks > 1:
            # `forward_tokens` gives the last block only; hooks see the others' outputs on the same way to it.
            for block in list(self.backbone.get_submodule("blocks").children())[-representation.blocks : -1]:
                block.register_forward_hook(lambda _block, _inputs, tokens_BND: self._earlier.append(tokens_BND))

    @torch.inference_mode()
    @full_float32()
    def __call__(self, images_B3HW: Tensor) -> dict[str, Tensor]:
        """Feature vectors of normalised images: `knn` [B, D] and `linear` [B, L], float32, on the CPU."""
        self._earlier.clear()
        tokens = self.backbone.forward_tokens(images_B3HW.to(self.device, non_blocking=True))
        mean_BD = tokens.patches.mean(1)
        token_BD = next(found for found in (tokens.pooled, tokens.cls, mean_BD) if found is not None)
        parts = [*map(self._token_of_block, self._earlier), token_BD]
        if self.representation.mean_patch:
            parts.append(mean_BD)
        # A CLS token that a user's network only expands is a view of its parameter, and would want a gradient.
        features = {KNN: token_BD.detach().float().cpu(), LINEAR: torch.cat(parts, dim=1).float().cpu()}
        if not torch.isfinite(features[LINEAR]).all():  # comparisons with NaN would give metrics that mean nothing
            raise ValueError("the backbone's features are not finite; its weights are damaged")
        return features

    def _token_of_block(self, tokens_BND: Tensor) -> Tensor:
        normed_BND: Tensor = self.backbone.get_submodule("norm")(tokens_BND)
        prefix = int(getattr(self.backbone, "num_prefix_tokens"))  # noqa: B009 - of ViTs, the only ones with several blocks
        return normed_BND[:, 0] if self.representation.class_token else normed_BND[:, prefix:].mean(1)


def _read_batch(source: Source, transform: Transform, indices: Sequence[int]) -> Tensor | ValueError:
    # DataLoader would bury an exception under its workers' tracebacks.
    try:
        return torch.stack([transform(read_image(source, index), index) for index in indices])
    except ValueError as error:
        return error


def load_batches(
    images: LabelledImages, transform: Transform, batches: Sequence[Sequence[int]], workers: int, device: torch.device
) -> Iterator[Tensor]:
    """Decode batches of images, given by their indices, none of them empty, in so many processes (0: this one).

    Yields [B, 3, H, W] for each, on the CPU, ready to be sent to `device`. ValueError names an image that cannot be decoded.
    """
    read = partial(_read_batch, images.source, transform)
    pinned = device.type == "cuda"
    image_bytes = transform(Image.new("RGB", (64, 64)), 0).nbytes
    workers = loader_processes(workers, max(map(len, batches), default=0) * image_bytes, "--workers")
    for batch in DataLoader(batches, batch_size=None, collate_fn=read, num_workers=workers, pin_memory=pinned):  # type: ignore[arg-type]
        if isinstance(batch, ValueError):
            raise batch
        yield batch


def extract_features(
    config: ClassificationConfig,
    images: LabelledImages,
    names: Sequence[str],
    backbone_sha256: str,
    extractor: FeatureExtractor,
) -> dict[str, FeatureStore]:
    """Make the feature vectors of these names for the images of a split, each decoded once; files in the cache stay.

    Every process makes each world-size-th file, so the files do not depend on the number of processes.
    """
    transform = partial(centre_crop, resize=config.resize, crop=config.crop)
    description = {"name": "centre crop", **transform.keywords}
    inputs = {"backbone": backbone_sha256, "images": images.content_sha256, "transform": description}
    words, root = extractor.representation.describe(), config.cache or config.output / "features"
    stores = {
        name: FeatureStore(
            root, {**inputs, "feature": name, "representation": words[name]}, len(images), rows_per_file=ROWS_PER_FILE
        )
        for name in names
    }
    spans = torch.arange(len(images)).split(ROWS_PER_FILE)
    files = [(number, store) for number in range(len(spans)) for store in stores.values()]
    own = [number for number, store in files if number % world_size() == rank() and not store.has(number)]
    parts = {number: spans[number].split(config.extraction_batch_size) for number in own}
    batches = [part.tolist() for number in parts for part in parts[number]]
    loaded = load_batches(images, transform, batches, config.workers, extractor.device)
    quiet = True if rank() or not batches else None  # None: quiet where no terminal is
    what = f"features of {images.fingerprint.split}"
    with Progress(total=sum(map(len, batches)), unit="image", desc=what, disable=quiet) as bar:
        for number in parts:
            found = []
            for part in parts[number]:
                found.append(extractor(next(loaded)))
                bar.update(len(part))
            for name, store in stores.items():
                if not store.has(number):
                    store.write(number, torch.cat([features[name] for features in found]).numpy())
    for store in stores.values():
        store.require_complete()
    return stores
