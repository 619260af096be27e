"""Dense retrieval: every patch of a test image takes its labels from the most similar patches of the training images."""

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from backbones.build import AnyBackbone, build_backbone
from backbones.file import BackboneFile, read_backbone_file
from backbones.spec import BackboneSpec
from common.distributed import rank
from common.files import write_atomically
from eval.course import Outcome, run_frozen
from eval.findings import merged, refuse
from eval.probes.data import Split, check_splits
from eval.probes.features import FrozenFeatures, check_input
from eval.probes.items import ARTEFACT
from eval.probes.matching import CELLS_AT_ONCE, Counts, best_matching, class_pixels, read_counts
from eval.probes.patches import fill_patches, open_patches
from eval.probes.pictures import draw_pictures
from eval.probes.pixels import compute_metrics
from eval.probes.search import MOST_ROWS, memory_bytes, require_engine
from eval.probes.sets import find_set
from eval.record import Evaluation
from eval.result import Metric, Result
from eval.retrieval_segmentation.config import RetrievalSegmentationConfig
from eval.retrieval_segmentation.pictures import pictures_of
from eval.retrieval_segmentation.protocol import Settings, labels_of, protocol_of, settings_of
from eval.retrieval_segmentation.retrieval import QUERIES_AT_ONCE, Retrieval
from eval.retrieval_segmentation.views import SquareView

logger = logging.getLogger(__name__)


def check(config: RetrievalSegmentationConfig, spec: BackboneSpec) -> tuple[Split, Split]:
    """Find a user's mistakes before anything heavy starts; the splits to remember and to segment."""
    stride = _stride(spec)
    settings = settings_of(config, stride)
    check_input(spec, settings.input_size)
    require_engine(config.search)
    found = find_set(config.data)
    train = "trainaug" if "trainaug" in found.sizes else found.train
    splits = check_splits(found, config.data, (train, found.test))
    views = len(splits[train].pairs) * settings.augmentation_epochs
    rows, least = views * _kept(settings, views, (settings.input_size // stride) ** 2), max(settings.neighbours)
    if settings.memory_size and settings.memory_size < views:
        raise ValueError(f"memory_size={settings.memory_size}: {views:,} views of training images need at least a patch each")
    if not least <= rows <= MOST_ROWS:
        raise ValueError(f"{config.data}: the memory would hold {rows:,} patches, and {least} to {MOST_ROWS:,} can be searched")
    if settings.held_out and not int(views * settings.held_out):
        share = f"{views} training images, of which a share of {settings.held_out} is none"
        raise ValueError(f"{config.data}: {share}; it needs at least {round(1 / settings.held_out)}")
    refuse(merged(finding for split in splits.values() for finding in split.check_files()), config.data)
    return splits[train], splits[found.test]


def _stride(spec: BackboneSpec) -> int:
    with torch.device("meta"):  # its tensors have no content
        return build_backbone(spec).map_strides([spec.num_blocks - 1])[0]


def _kept(settings: Settings, views: int, patches: int) -> int:
    """How many patches of each view of a training image are stored."""
    return min(patches, settings.memory_size // views) if settings.memory_size else patches


def evaluate(config: RetrievalSegmentationConfig) -> Result:
    """Run the task, or what is left of it; a finished task with the same inputs is only read.

    Under torchrun every process stores a share of the patches and segments a share of the test images.
    """
    start = time.monotonic()
    backbone = read_backbone_file(config.backbone)
    splits = check(config, backbone.spec)
    protocol = protocol_of(config, _stride(backbone.spec), backbone.spec)
    datasets = {"train": splits[0].describe(), "test": splits[1].describe()}

    def work(evaluation: Evaluation, network: AnyBackbone, device: torch.device) -> Callable[[], Outcome]:
        extract = FrozenFeatures(network, device)
        retrieval = _open(config, splits, extract, backbone)
        if rank() == 0:
            logger.info(needs(retrieval))
        for patches in (retrieval.train, retrieval.test):
            fill_patches(patches, extract, config.batch_size, config.workers)
        folder = config.output / "confusions" / evaluation.inputs_sha256[:16]
        distance, number = retrieval.choose(folder)
        memory = retrieval.remember(range(retrieval.train.num_views), distance)
        paths = retrieval.confusions(folder, "test", retrieval.test, range(retrieval.test.num_views), memory, [number])

        def conclude() -> Outcome:
            draw = partial(pictures_of, retrieval, memory, number)
            pictures = draw_pictures(list(splits[1].pairs), config.pictures, config.output / "pictures", draw)
            return _outcome(config, retrieval, (distance, number), paths, pictures)

        return conclude

    return run_frozen("retrieval_segmentation", config, backbone, protocol, datasets, start, work)


def _open(
    config: RetrievalSegmentationConfig, splits: Sequence[Split], extract: FrozenFeatures, backbone: BackboneFile
) -> Retrieval:
    settings = settings_of(config, _stride(backbone.spec))
    side = settings.input_size // _stride(backbone.spec)
    labels = labels_of(splits[0].of, settings)
    view = partial(
        SquareView, size=settings.input_size, std=settings.std, bicubic=settings.bicubic, num_classes=len(labels.names)
    )
    remembered = view(
        table=labels.remembered,
        kept=_kept(settings, len(splits[0].pairs) * settings.augmentation_epochs, side**2),
        epochs=settings.augmentation_epochs,
        random=settings.augmented,
        seed=config.seed if settings.augmented else 0,
    )
    root = config.cache or config.output / "patches"
    train = open_patches(root, splits[0], remembered, extract, backbone.sha256, side)
    test = open_patches(root, splits[1], view(table=labels.true, kept=side**2), extract, backbone.sha256, side)
    return Retrieval(settings, labels, train, test, extract.device, config.search, config.seed)


def needs(retrieval: Retrieval) -> str:
    """What is stored on disk and held in memory at once, in words."""
    train, test = retrieval.train, retrieval.test
    disk, folder = (train.stored_bytes + test.stored_bytes) / 2**30, train.features.folder.parent
    counts = 2 * 4 * CELLS_AT_ONCE  # image by image, and joined for the file
    memory = (memory_bytes(retrieval.device) + 4 * QUERIES_AT_ONCE * test.patch_bytes + counts) / 2**30
    return (
        f"the memory has {train.features.num_rows:,} patches; {disk:.2f} GiB on disk in {folder}, and at most about {memory:.1f} GiB "
        "of memory besides the network, whatever the size of the data set"
    )


def _outcome(
    config: RetrievalSegmentationConfig,
    retrieval: Retrieval,
    chosen: tuple[str, int],
    paths: Sequence[Path],
    pictures: dict[str, str],
) -> Outcome:
    settings, test = retrieval.settings, retrieval.test.split
    total_CC = sum(read_counts(path)[:, 0].sum(axis=0) for path in paths)
    matching_C = best_matching(total_CC) if settings.matching else None
    pixels_N3C = np.concatenate([class_pixels(read_counts(path)[:, 0], matching_C) for path in paths])
    write = partial(np.savez_compressed, allow_pickle=False, names=np.array(list(test.pairs)), counts=pixels_N3C)
    write_atomically(config.output / f"{ARTEFACT}.npz", write)
    metrics, per_class = _metrics(pixels_N3C.sum(axis=0), settings)
    if settings.matching:
        metrics["mIoU, unmatched"] = _metrics(class_pixels(total_CC), settings)[0]["mIoU"]
    return Outcome(
        {name: Metric(value=value) for name, value in metrics.items()},
        {ARTEFACT: f"{ARTEFACT}.npz", **pictures},
        dict(zip(retrieval.labels.names, per_class, strict=True)),
        {"chosen_distance": chosen[0], "chosen_neighbours": chosen[1]},
    )


def _metrics(pixels_3C: Counts, settings: Settings) -> tuple[dict[str, float], list[dict[str, float]]]:
    metrics, per_class = compute_metrics(torch.from_numpy(pixels_3C))
    if settings.absent_classes:  # by numpy's mean, whose last digit differs from torch's: earlier results were made so
        metrics["mIoU"] = float(np.nan_to_num([scores["IoU"] for scores in per_class]).mean())
    return {name: metrics[name] for name in ("mIoU", "aAcc")}, per_class
