"""VIP: carry the parts of persons in the first frames through the videos, and measure mIoU of the masks."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from backbones.base import input_multiple
from backbones.build import network_of
from backbones.file import read_backbone_file
from backbones.spec import BackboneSpec
from common.distributed import choose_device, process_group, rank, wait_for_all
from common.files import file_sha256, write_atomically
from common.launch import usable_cores
from eval.image_checks import in_processes, look_at
from eval.probes.items import ARTEFACT
from eval.probes.matching import class_pixels
from eval.probes.pixels import compute_metrics
from eval.propagation.features import FeatureExtractor, check_inputs
from eval.propagation.masks import blend, read_image, read_mask, resize_mask
from eval.propagation.protocol import Rules, settings_of
from eval.propagation.videos import VideoSequence
from eval.propagation.writing import OnFrame, claim, over_videos, run_propagation, whole_folder
from eval.record import Evaluation, unpublished
from eval.result import Metric, Protocol, Result
from eval.tasks import BENCHMARKS
from eval.vip.config import VipConfig
from eval.vip.data import describe, find_videos
from eval.vip.masks import write_video
from eval.vip.metric import mask_name, video_confusion
from eval.vip.protocol import CLASSES, PROTOCOL_VERSION, PUBLISHED, deviations, rules_for

MASKS_FOLDER = "masks"
PIXELS_FILE = "video_pixels.npz"


def check(config: VipConfig, spec: BackboneSpec) -> list[VideoSequence]:
    """Find a user's mistakes before anything heavy starts, and list the videos."""
    videos = find_videos(config.data, config.video_list)
    rules = [_rules(config, video, spec) for video in videos]
    check_inputs(
        spec,
        (found.stretched_to for found in rules if found.stretched_to),
        config.block,
        "; --round-up true takes the next sizes that fit",
    )
    return videos


def evaluate(config: VipConfig) -> Result:
    """Run the task, or what is left of it; a finished task with the same inputs is only read.

    Under torchrun, every process propagates its share of the videos and the first one scores.
    """
    start = time.monotonic()
    backbone = read_backbone_file(config.backbone)
    videos = check(config, backbone.spec)
    network = network_of(backbone.spec, backbone.state_dict)
    device = choose_device(config.device)
    with process_group(device, "gloo"):
        extract = FeatureExtractor(network, config.block, device)
        protocol = Protocol(
            name=BENCHMARKS[f"vip_{config.protocol}"].protocol,
            version=PROTOCOL_VERSION,
            settings={**settings_of(PUBLISHED[config.protocol]), "features": extract.describe(), "stride": extract.stride},
            deviations=deviations(config) | unpublished(backbone.spec),
        )
        datasets = {"test": describe(config.data, videos, config.video_list)}
        evaluation = Evaluation(task="vip", options=config, backbone=backbone, protocol=protocol, datasets=datasets)
        masks = config.output / MASKS_FOLDER

        def propagate() -> None:
            if rank() == 0:
                claim(masks, {**evaluation.inputs, "first masks": [file_sha256(video.masks[0]) for video in videos]})
            wait_for_all()
            over_videos(
                videos,
                lambda video: _is_whole(video, masks / video.name),
                lambda video, on_frame: write_video(
                    video, masks / video.name, extract, _rules(config, video, backbone.spec), on_frame
                ),
            )

        def draw(folder: Path) -> None:
            over_videos(videos, lambda _: False, partial(write_overlays, masks, folder), "overlays")

        score = partial(_scored, evaluation, videos, device, start)
        return run_propagation(evaluation, {"masks": MASKS_FOLDER}, propagate, draw, score)


def _rules(config: VipConfig, video: VideoSequence, spec: BackboneSpec) -> Rules:
    return rules_for(video.size, PUBLISHED[config.protocol], input_multiple(spec) if config.round_up else 1)


def _is_whole(video: VideoSequence, folder: Path) -> bool:
    """Whether every mask of a video is there and whole, also after a crash of the machine that wrote them."""
    return folder.is_dir() and not any(look_at(folder / mask_name(frame), labels=True).damage for frame in video.frames)


def write_overlays(masks: Path, folder: Path, video: VideoSequence, on_frame: OnFrame) -> None:
    """Draw the masks of a video over its frames."""
    with whole_folder(folder / video.name) as partial_folder:
        for frame in video.frames:
            ids_HW = resize_mask(read_mask(masks / video.name / mask_name(frame)), video.size)
            Image.fromarray(blend(read_image(frame), ids_HW)).save(partial_folder / f"{frame.stem}.png")
            on_frame()


def _scored(evaluation: Evaluation, videos: Sequence[VideoSequence], device: torch.device, start: float) -> Result:
    """The result of the masks in the output folder."""
    config = evaluation.options
    folders = [config.output / MASKS_FOLDER / video.name for video in videos]
    workers = min(config.jobs or usable_cores(), len(videos))
    counts_N3K = class_pixels(np.stack(list(in_processes(workers, video_confusion, videos, folders))))
    names = np.array([video.name for video in videos])
    write_atomically(config.output / PIXELS_FILE, lambda path: np.savez(path, names=names, counts=counts_N3K))
    means, per_class = compute_metrics(torch.from_numpy(counts_N3K.sum(0)))
    metrics = {name: Metric(value=value) for name, value in means.items()}
    breakdown = dict(zip(CLASSES, per_class, strict=True))
    return evaluation.record(metrics, breakdown, {ARTEFACT: PIXELS_FILE}, device, start)
