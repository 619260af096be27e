"""Weighted k-NN with the teacher's backbone during training: the quickest evidence that features tell classes apart.

Shapes: N neighbours, T images to classify, D channels, S images of this process's share.
"""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.datasets import ImageFolder
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tvf

from backbones.build import AnyBackbone
from common.distributed import gather_from_processes, gather_objects, rank, sum_over_processes, world_size
from common.images import IMAGENET_MEAN, IMAGENET_STD
from common.knn import classify, find_neighbours
from pretrain.config import PretrainConfig
from pretrain.data.views import decode_whole

NEIGHBOURS = 20  # DINO's k of the published accuracies; fewer where there are fewer neighbours
TEMPERATURE = 0.07  # DINO's, too
RESIZE_FACTOR = 256 / 224  # shorter side before the centre crop, over the crop's: DINO's evaluations resize to 256, crop 224
_BATCH = 64  # images per forward pass: a part of what a training step needs

logger = logging.getLogger(__name__)


def find_labelled(folder: Path, option: str) -> ImageFolder:
    """The images, at any depth, of a folder of class folders, which `option` gave."""
    try:
        return ImageFolder(folder)
    except OSError as error:
        raise ValueError(f"{option}: {error}; give a folder with a folder of images per class") from error


def centre_crop(image: Image.Image, resize: int, crop: int) -> Image.Image:
    """The middle of an image whose shorter side is resized by bicubic interpolation first."""
    return tvf.center_crop(tvf.resize(image, resize, InterpolationMode.BICUBIC), [crop, crop])


def network_input(image: Image.Image) -> Tensor:
    """float32 [3, H, W], normalised."""
    return tvf.normalize(tvf.to_tensor(image), list(IMAGENET_MEAN), list(IMAGENET_STD))


@contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; afterwards every module's mode is what it was."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():  # not inference mode: what is cached in it could not take part in training
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class OnlineKNN:
    """Classifies labelled images by their neighbours; all processes call each method together.

    Each reads its part of the images, all exchange features, each classifies its part. So none waits for another longer than a few
    batches, whatever the time limit of the process group is.
    """

    def __init__(self, config: PretrainConfig, device: torch.device) -> None:
        """Decode every image once, so that a damaged one is found before training: a ValueError on all processes."""
        train, val = config.watch.knn_train, config.watch.knn_val
        assert train is not None and val is not None  # noqa: PT018
        neighbours, others = find_labelled(train, "watch.knn_train"), find_labelled(val, "watch.knn_val")
        if unknown := sorted(set(others.classes) - set(neighbours.classes)):
            raise ValueError(
                f"watch.knn_val: {val} has {len(unknown)} classes of which there are no neighbours, such as {unknown[0]}; "
                "watch.knn_train must have all classes of watch.knn_val"
            )
        self._train, self._num_classes = neighbours.samples, len(neighbours.classes)
        self._val = [(path, neighbours.class_to_idx[others.classes[label]]) for path, label in others.samples]
        self._size, self._threads, self._device = config.views.global_size, max(1, config.data.workers), device
        for images, option in ((self._train, "watch.knn_train"), (self._val, "watch.knn_val")):
            try:
                for _ in self._batches(images):
                    pass
            except OSError as error:
                raise ValueError(f"{option}: cannot read {error}; repair or remove it") from error
        if rank() == 0:
            logger.info("k-NN: %d images of %d classes by %d neighbours", len(self._val), self._num_classes, len(self._train))

    def accuracy(self, backbone: AnyBackbone) -> float | None:
        """Top-1 accuracy in percent, the same on all processes; None, with a warning, if an image can no longer be read."""
        try:
            with undisturbed(backbone):
                train_ND, val_TD = (self._features(backbone, images) for images in (self._train, self._val))
        except OSError as error:
            logger.warning("no k-NN this time: %s", error)
            return None
        train_labels_N, val_labels_T = (torch.tensor([label for _, label in images]) for images in (self._train, self._val))
        own_S, k = torch.arange(rank(), len(self._val), world_size()), min(NEIGHBOURS, len(self._train))
        neighbours = find_neighbours(val_TD[own_S], train_ND, k, self._device)
        ranks_S = classify(neighbours, train_labels_N, val_labels_T[own_S], [k], TEMPERATURE, self._num_classes)[k]
        (hits,) = sum_over_processes((ranks_S == 0).sum().to(self._device, torch.float64))
        return 100 * float(hits) / len(self._val)

    def _features(self, backbone: AnyBackbone, images: Sequence[tuple[str, int]]) -> Tensor:
        """The CLS tokens or, where there are none, the means of all patches, as evaluation has it: float32 [N, D] on the CPU."""
        rows = []
        for images_B3HW in self._batches(images):
            tokens = backbone.forward_tokens(images_B3HW.to(self._device))
            rows.append((tokens.patches.mean(1) if tokens.cls is None else tokens.cls).float())
        return gather_from_processes(torch.cat(rows))[: len(images)].cpu()

    def _batches(self, images: Sequence[tuple[str, int]]) -> Iterator[Tensor]:
        """Every world_size-th image, in batches [B, 3, H, W]; at the end an OSError on all processes if one could not be read."""

        def read(index: int) -> Tensor:
            path, _ = images[index % len(images)]
            try:
                image = Image.fromarray(decode_whole(Path(path).read_bytes()))
            except OSError as error:
                raise OSError(f"{path} ({error})") from error
            return network_input(centre_crop(image, round(self._size * RESIZE_FACTOR), self._size))

        # Shares must be of one length to be exchanged; the last ones may begin anew with the first images.
        share = range(rank(), len(images) + -len(images) % world_size(), world_size())
        failure = ""
        with ThreadPoolExecutor(self._threads) as pool:
            try:
                for first in range(0, len(share), _BATCH):
                    yield torch.stack(list(pool.map(read, share[first : first + _BATCH])))
            except OSError as error:
                failure = str(error)
        for unreadable in filter(None, gather_objects(failure)):
            raise OSError(unreadable)
