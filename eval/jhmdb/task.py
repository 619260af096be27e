"""JHMDB: carry the joints of the first frames through the videos, and measure PCK of where they are found.

Shapes: J joints, T frames, N videos, A thresholds. The 2 is x and y.
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageColor, ImageDraw

from backbones.base import input_multiple
from backbones.build import network_of
from backbones.file import read_backbone_file
from backbones.spec import BackboneSpec
from common.distributed import choose_device, process_group
from common.files import write_atomically
from eval.jhmdb.config import JhmdbConfig
from eval.jhmdb.data import JOINTS, JointVideo, describe, find_videos
from eval.jhmdb.items import ARTEFACT, pck
from eval.jhmdb.joints import Places, count_right, in_pixels, joint_distances, joint_labels, joint_places
from eval.jhmdb.protocol import PROTOCOL_VERSION, JhmdbRules, deviations, rules_of
from eval.propagation.carrying import carried_labels
from eval.propagation.features import FeatureExtractor, check_inputs
from eval.propagation.masks import read_image
from eval.propagation.protocol import settings_of
from eval.propagation.writing import OnFrame, over_videos, run_propagation, whole_folder
from eval.record import Evaluation, unpublished
from eval.result import Metric, Protocol, Result, read_arrays
from eval.tasks import BENCHMARKS

JOINTS_FOLDER = "joints"
COUNTS_FILE = "video_joints.npz"

_DRAWN_HEIGHT = 480  # of a frame with joints; JHMDB's have 240 pixels, too few for 15 marks


def check(config: JhmdbConfig, spec: BackboneSpec) -> list[JointVideo]:
    """Find a user's mistakes before anything heavy starts, and list the videos."""
    videos = find_videos(config.data, config.video_list)
    size = rules_of(config, input_multiple(spec)).propagation.stretched_to
    assert size is not None
    check_inputs(spec, [size], config.block, "; --round-up true takes the next sizes that fit")
    return videos


def evaluate(config: JhmdbConfig) -> Result:
    """Run the task, or what is left of it; a finished task with the same inputs is only read.

    Under torchrun, every process finds the joints of its share of the videos and the first one scores.
    """
    start = time.monotonic()
    backbone = read_backbone_file(config.backbone)
    videos = check(config, backbone.spec)
    network = network_of(backbone.spec, backbone.state_dict)
    device = choose_device(config.device)
    rules = rules_of(config, input_multiple(backbone.spec))
    with process_group(device, "gloo"):
        extract = FeatureExtractor(network, config.block, device)
        protocol = Protocol(
            name=BENCHMARKS[f"jhmdb_{config.protocol}"].protocol,
            version=PROTOCOL_VERSION,
            settings={**settings_of(rules), "features": extract.describe(), "stride": extract.stride},
            deviations=deviations(config, rules) | unpublished(backbone.spec),
        )
        datasets = {"test": describe(config.data, videos, config.video_list)}
        evaluation = Evaluation(task="jhmdb", options=config, backbone=backbone, protocol=protocol, datasets=datasets)
        folder, inputs = config.output / JOINTS_FOLDER, evaluation.inputs_sha256

        def propagate() -> None:
            over_videos(
                videos,
                lambda video: read_found(folder, video, inputs) is not None,
                lambda video, on_frame: write_found(folder, video, inputs, find_joints(video, extract, rules, on_frame)),
            )

        def draw(overlays: Path) -> None:
            over_videos(videos, lambda _: False, partial(draw_joints, evaluation, overlays), "overlays")

        score = partial(_scored, evaluation, rules, videos, device, start)
        return run_propagation(evaluation, {"joints": JOINTS_FOLDER}, propagate, draw, score)


def find_joints(video: JointVideo, extract: FeatureExtractor, rules: JhmdbRules, on_frame: OnFrame) -> Places:
    """Places of the joints in pixels [2, J, T], below 0 for a joint that is not found; of the first frame, those of its labels."""
    size = rules.propagation.stretched_to
    assert size is not None
    grid = size[0] // extract.stride, size[1] // extract.stride
    on_grid = np.array([[grid[1] / video.size[1]], [grid[0] / video.size[0]]])
    labels_hwC = joint_labels(video.places_2JT[..., 0] * on_grid, grid)
    frames = video.frames[: video.places_2JT.shape[2]]
    found = [joint_places(labels_hwC, rules.joint_cells)]
    on_frame()
    for carried_hwC in carried_labels(frames, video.size, lambda _: labels_hwC, extract, rules.propagation):
        found.append(joint_places(carried_hwC, rules.joint_cells))
        on_frame()
    # Copied when all frames are queued: each copy waits for what a GPU has to do before it.
    return in_pixels(np.stack([places_2J.cpu().numpy() for places_2J in found], axis=2), video.size, grid)


def write_found(folder: Path, video: JointVideo, inputs: str, found_2JT: Places) -> None:
    write_atomically(
        folder / f"{video.name}.npz",
        lambda path: np.savez(path, places=found_2JT, joints=np.array(JOINTS), inputs=np.array(inputs)),
    )


def read_found(folder: Path, video: JointVideo, inputs: str) -> Places | None:
    """What an earlier run with these inputs has found, or None; ValueError if it was one with others."""
    path = folder / f"{video.name}.npz"
    if not path.is_file():
        return None
    arrays = read_arrays(path)
    if str(arrays.get("inputs")) != inputs:
        raise ValueError(f"{path}: joints of other inputs; choose another --output or remove {folder}")
    places: Places = arrays["places"].astype(np.float32)
    return places


def _found(evaluation: Evaluation, video: JointVideo) -> Places:
    found = read_found(evaluation.options.output / JOINTS_FOLDER, video, evaluation.inputs_sha256)
    assert found is not None, video.name
    return found


def _scored(
    evaluation: Evaluation, rules: JhmdbRules, videos: Sequence[JointVideo], device: torch.device, start: float
) -> Result:
    distances = [joint_distances(video.places_2JT, _found(evaluation, video)) for video in videos]
    counts = [count_right(of_video_JT, rules.thresholds) for of_video_JT in distances]
    right_NAJ, counted_NJ = (np.stack(parts) for parts in zip(*counts, strict=True))
    names = np.array([video.name for video in videos])
    write_atomically(
        evaluation.options.output / COUNTS_FILE, lambda path: np.savez(path, names=names, right=right_NAJ, counted=counted_NJ)
    )
    headings = [f"PCK@{threshold}" for threshold in rules.thresholds]
    right_AJ, counted_J = right_NAJ.sum(0), counted_NJ.sum(0)
    means_A = pck(right_AJ[None], counted_J[None])[0]
    metrics = {name: Metric(value=float(value)) for name, value in zip(headings, means_A, strict=True)}
    shares_AJ = 100 * np.divide(right_AJ, counted_J, out=np.full_like(right_AJ, np.nan), where=counted_J > 0)
    breakdown = {
        joint: dict(zip(headings, shares_A.tolist(), strict=True)) for joint, shares_A in zip(JOINTS, shares_AJ.T, strict=True)
    }
    return evaluation.record(metrics, breakdown, {ARTEFACT: COUNTS_FILE}, device, start)


def draw_joints(evaluation: Evaluation, folder: Path, video: JointVideo, on_frame: OnFrame) -> None:
    """Draw each frame with its joints, each in its own colour: a ring where it is, a disk where it was found, and a line between."""
    scale, found_2JT = _DRAWN_HEIGHT / video.size[0], _found(evaluation, video)
    with whole_folder(folder / video.name) as partial_folder:
        for number in range(found_2JT.shape[2]):
            image = Image.fromarray(read_image(video.frames[number]))
            image = image.resize((round(video.size[1] * scale), _DRAWN_HEIGHT))
            pen = ImageDraw.Draw(image)
            for joint in range(len(JOINTS)):
                colour = ImageColor.getrgb(f"hsv({360 * joint // len(JOINTS)}, 100%, 100%)")
                true = tuple(scale * video.places_2JT[:, joint, number])
                pen.circle(true, 6, outline=colour, width=2)
                if found_2JT[0, joint, number] >= 0:
                    place = tuple(scale * found_2JT[:, joint, number])
                    pen.line([true, place], fill=colour, width=2)
                    pen.circle(place, 4, fill=colour)
            image.save(partial_folder / f"{video.frames[number].stem}.png")
            on_frame()
