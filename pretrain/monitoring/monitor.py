"""Monitoring of a run: every so many epochs its k-NN accuracy goes to the log, and plots and curves to the folder `watch/`.

Weighted k-NN with the teacher's backbone is the quickest evidence that features tell classes apart.

Shapes: N neighbours, T images to classify, D channels, S images of this process's share.
"""

import json
import logging
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from backbones.build import AnyBackbone
from common.distributed import gather_from_processes, gather_objects, rank, sum_over_processes, world_size
from common.files import write_atomically
from common.images import is_hidden, read_file
from common.knn import classify, find_neighbours
from common.plots import Panel, write_panels
from pretrain.config import PretrainConfig
from pretrain.data.sources import ImageFiles, images_of_folder
from pretrain.data.views import decode_whole
from pretrain.log import LOG_FILE, RunLog
from pretrain.monitoring.plots import centre_crop, choose_images, draw_all, network_input, subject_of, undisturbed

WATCH_FOLDER = "watch"
KNN = "knn_top1"  # name of the k-NN accuracy in the log, in percent
NEIGHBOURS = 20  # DINO's k of the published accuracies; fewer where there are fewer neighbours
TEMPERATURE = 0.07  # DINO's, too
RESIZE_FACTOR = 256 / 224  # shorter side before the centre crop, over the crop's: DINO's evaluations resize to 256, crop 224
_BATCH = 64  # images per forward pass: a part of what a training step needs
_PARTS, _ENTROPIES, _SPREADS = ("cls", "patch"), ("entropy", "batch_entropy"), ("deviation", "similarity", "queue_similarity")

_PANELS = (
    Panel("loss", ["loss"]),
    Panel("parts of the loss", ["cls_loss", "patch_loss"]),
    Panel("entropy of targets\n(part of log K)", [f"{part}_{what}_part" for part in _PARTS for what in _ENTROPIES]),
    Panel("length of the centre", ["cls_centre_norm", "patch_centre_norm"]),
    Panel("spread of embeddings", [f"{part}_{what}" for part in _PARTS for what in _SPREADS]),
    Panel("k-NN top-1 (%)", [KNN], smooth=False),
    Panel("learning rate", ["lr"], smooth=False),
)

logger = logging.getLogger(__name__)


class OnlineKNN:
    """Classifies labelled images by their neighbours; all processes call each method together.

    Each reads its part of the images, all exchange features, each classifies its part. So none waits for another longer than a few
    batches, whatever the time limit of the process group is.
    """

    def __init__(self, config: PretrainConfig, device: torch.device) -> None:
        """Decode every image once, so that a damaged one is found before training: a ValueError on all processes."""
        found = [images_by_class(getattr(config.watch, name), f"watch.{name}") for name in ("knn_train", "knn_val")]
        labels = {name: label for label, name in enumerate(found[0])}
        if unknown := [name for name in found[1] if name not in labels]:
            what = f"watch.knn_val: {config.watch.knn_val} has {len(unknown)} classes of which there are no neighbours"
            raise ValueError(f"{what}, such as {unknown[0]}; watch.knn_train must have them")
        samples = ([(path, labels[name]) for name, paths in each.items() for path in paths] for each in found)
        (self._train, self._val), self._num_classes = samples, len(labels)
        self._size, self._threads, self._device = config.views.global_size, max(1, config.data.workers), device
        for images, option in ((self._train, "watch.knn_train"), (self._val, "watch.knn_val")):
            try:
                for _ in self._batches(images):
                    pass
            except OSError as error:
                raise ValueError(f"{option}: cannot read {error}; repair or remove it") from error
        neighbours = {_identity(path) for path, _ in self._train}
        if shared := [path for path, _ in self._val if _identity(path) in neighbours]:
            raise ValueError(
                f"watch.knn_val: {shared[0]} is in watch.knn_train, too: it would be its own neighbour; remove it from one"
            )
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
                image = Image.fromarray(decode_whole(read_file(Path(path))))
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


def _identity(path: str) -> tuple[int, int]:
    """What is the same for all links to a file."""
    status = Path(path).stat()
    return status.st_dev, status.st_ino


def images_by_class(folder: Path, option: str) -> dict[str, list[str]]:
    """The paths of the images in each class's folder, sorted; a ValueError if a class, or an image's class, is missing."""
    images = images_of_folder(folder, option)
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))
    found: dict[str, list[str]] = {name: [] for name in classes}
    for path in map(images.describe, range(len(images.names))):
        if (parts := Path(path).relative_to(folder).parts)[1:] == ():
            raise ValueError(f"{option}: {path} is in no class; give a folder with a folder of images per class")
        found[parts[0]].append(path)
    if empty := [name for name, paths in found.items() if not paths]:
        raise ValueError(f"{option}: {folder / empty[0]} holds no image of its own; every class needs some")
    return found


class Monitor:
    """Looks at the teacher at the ends of epochs.

    A run computes the same without it, on a CPU bit for bit: it may read networks and draw random numbers, but change nothing else.
    """

    def __init__(self, config: PretrainConfig, source: ImageFiles, device: torch.device) -> None:
        """Read what is needed on all processes, so that all of them find before training what is missing or damaged."""
        self._config, watch = config, config.watch
        drawn = source if watch.images is None else images_of_folder(watch.images, "watch.images")
        self._images = choose_images(drawn, watch.num_images, spread=watch.images is None)
        self._knn = OnlineKNN(config, device) if watch.knn_train is not None else None

    def before_log(self, step: int, epochs_done: int, teacher: nn.Module, log: RunLog | None) -> dict[str, float]:
        """At an epoch's end, draw, on the first process, which has the log, and return what its next line gets: the k-NN accuracy."""
        subject = subject_of(teacher, self._config)
        accuracy = self._knn.accuracy(subject.backbone) if self._knn else None
        if log is None:
            return {}
        if accuracy is not None:
            logger.info("epoch %d: k-NN top-1 %.1f %%", epochs_done, accuracy)
        folder = self._config.train.output / WATCH_FOLDER / f"epoch_{epochs_done:04d}"
        try:
            for name, figure in draw_all(subject, self._images).items():
                write_atomically(folder / f"{name}.png", figure.savefig)
                log.board.add_figure(f"{WATCH_FOLDER}/{name}", figure, step)
        except OSError as error:
            logger.error("no plots of epoch %d: %s", epochs_done, error)
        return {} if accuracy is None else {KNN: accuracy}

    def after_log(self, epochs_done: int) -> None:
        """Draw the curves of the log, whose line of this epoch's end is written; for the first process."""
        output = self._config.train.output
        try:
            lines = [json.loads(line) for line in (output / LOG_FILE).read_text(encoding="utf-8").splitlines()]
            names = {name for line in lines for name in line}
            write_panels(lines, "step", panels(names), output / WATCH_FOLDER / "curves.png")
        except OSError as error:
            logger.error("no curves at epoch %d: %s", epochs_done, error)


def panels(names: Collection[str]) -> list[Panel]:
    """What to draw of the numbers that a log has."""
    present = [panel._replace(names=[name for name in panel.names if name in names]) for panel in _PANELS]
    return [panel for panel in present if panel.names]
