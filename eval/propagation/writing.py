"""Writing what propagation gives of whole sequences, so that an interrupted run continues, and overlays beside it."""

import functools
import itertools
import json
import logging
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.distributed import rank, wait_for_all, world_size
from common.files import (
    file_sha256,
    names_file,
    parse_json,
    remove_leftovers,
    text_sha256,
    write_atomically,
    write_text_atomically,
)
from eval.image_checks import look_at
from eval.progress import Progress
from eval.propagation.carrying import Item, carried_labels, in_threads, threads_for
from eval.propagation.features import FeatureExtractor, input_size
from eval.propagation.labels import channel_ids, compete, first_labels, to_mask, with_channels
from eval.propagation.masks import overlay, write_mask
from eval.propagation.protocol import VERSIONS, PropagationSettings, propagation_settings
from eval.propagation.videos import VideoSequence
from eval.record import Evaluation, Inputs, differences
from eval.result import RESULT_FILE, Dataset, Result, read_result, write_result

logger = logging.getLogger(__name__)


class Video(Protocol):
    """What the processes of a run share."""

    @property
    def name(self) -> str: ...
    @property
    def frames(self) -> Sequence[Path]: ...


AnyVideo = TypeVar("AnyVideo", bound=Video)
OnFrame = Callable[[], None]

OVERLAYS_FOLDER = "overlays"
MANIFEST = "propagation.json"  # beside the sequences' folders: from what they were made

# Masks waiting to be written, at most, on a GPU; a CPU takes longer for a frame than for writing it, and frames count once written.
_WRITE_BEHIND = 8

_TELL_AFTER_S = 120  # between two lines of the log about one video


def run_propagation(
    evaluation: Evaluation,
    artefacts: dict[str, str],
    propagate: Callable[[], None],
    draw: Callable[[Path], None],
    score: Callable[[], Result],
) -> Result:
    """Do what is left of a task that all processes begin together; what is finished is only read.

    All processes propagate, by which the `artefacts` come to be, and draw overlays into a folder if the options say so, also for a
    result that was finished without them; the first one alone scores.
    """
    config = evaluation.options

    def has_all(found: Result) -> bool:
        return not config.overlays or OVERLAYS_FOLDER in found.artefacts

    with evaluation.begun(has_all) as finished:
        if finished is not None and has_all(finished):
            return finished
        propagate()
        if config.overlays:
            draw(config.output / OVERLAYS_FOLDER)
            artefacts = {**artefacts, "overlays": OVERLAYS_FOLDER}
        if rank() == 0:
            found = score() if finished is None else finished
            write_result(config.output, replace(found, artefacts={**artefacts, **found.artefacts}))
        wait_for_all()
        return read_result(config.output / RESULT_FILE)


def write_masks(
    sequences: Sequence[VideoSequence],
    folder: Path,
    extract: FeatureExtractor,
    settings: PropagationSettings,
    backbone_sha256: str,
    dataset: Dataset,
) -> None:
    """Write this process's share of the sequences to `folder/SEQUENCE`, without those that are there; return when all are written."""
    logger.info("%d sequences; features %s, stride %d", len(sequences), extract.describe(), extract.stride)
    # Of the frames, gigabytes, the data set's number and size stand for their content.
    first_masks = [file_sha256(path) for sequence in sequences for path in sequence.given_files()]
    inputs = {
        "backbone": backbone_sha256,
        "dataset": asdict(dataset),
        "first masks": first_masks,
        "version": VERSIONS[settings.protocol],
        "settings": propagation_settings(settings),
    }
    if rank() == 0:
        claim(folder, inputs)
    wait_for_all()
    over_videos(
        sequences,
        lambda sequence: _is_whole(sequence, folder / sequence.name),
        lambda sequence, on_frame: write_sequence(sequence, folder / sequence.name, extract, settings, on_frame),
    )


def over_videos(
    videos: Sequence[AnyVideo],
    is_done: Callable[[AnyVideo], bool],
    work: Callable[[AnyVideo, OnFrame], object],
    what: str = "propagation",
) -> None:
    """Do the work for this process's share of the videos, without those for which it is done; return when all are done.

    The work calls what it is given after each frame of the video.
    """
    own = share(videos, rank(), world_size())
    remaining = [video for video in own if not is_done(video)]
    if finished := len(own) - len(remaining):
        logger.info("%d of %d videos were finished by an earlier run", finished, len(own))
    frames_left = sum(len(video.frames) for video in remaining)
    with Progress(total=frames_left, unit="frame", desc=what, disable=None) as bar:
        for video in remaining:
            start, frames = time.monotonic(), len(video.frames)
            work(video, _teller(bar, video))
            frames_left -= frames
            speed = frames / (time.monotonic() - start)
            logger.info("%s: %d frames (%.2f frames/s); about %.0f s left", video.name, frames, speed, frames_left / speed)
    wait_for_all()


def _teller(bar: Progress, video: Video) -> OnFrame:
    """What to call after each frame of a video: it moves the bar, and tells the log every few minutes, where no bar is shown."""
    done, told = itertools.count(1), time.monotonic()

    def on_frame() -> None:
        nonlocal told
        bar.update()
        number = next(done)
        if time.monotonic() - told >= _TELL_AFTER_S:
            told = time.monotonic()
            logger.info("%s: %d of %d frames", video.name, number, len(video.frames))

    return on_frame


def share(sequences: Sequence[AnyVideo], rank: int, world_size: int) -> list[AnyVideo]:
    """One process's sequences: the longest first, each to the process with the fewest frames so far, in the given order."""
    loads = [0] * world_size
    owner = {}
    for sequence in sorted(sequences, key=lambda item: (-len(item.frames), item.name)):
        owner[sequence.name] = least = loads.index(min(loads))
        loads[least] += len(sequence.frames)
    return [sequence for sequence in sequences if owner[sequence.name] == rank]


def write_sequence(
    sequence: VideoSequence,
    folder: Path,
    extract: FeatureExtractor,
    settings: PropagationSettings,
    on_frame: OnFrame,
) -> None:
    """Propagate through a sequence and write `folder/FRAME.png`; the folder appears when all of them are written.

    Frames are decoded ahead and masks are written behind, in threads of their own.
    """
    rules, given = settings.rules, sequence.given_masks()
    first = min(given)
    if not given[first].any():
        logger.warning("%s: the first mask has no object; all its masks will be empty", sequence.name)
    later = {sequence.frames[number]: mask for number, mask in given.items() if number > first}
    size = input_size(*sequence.size, rules, extract.input_multiple)
    ids = channel_ids(np.concatenate([mask.ravel() for mask in given.values()]), rules)

    def write(propagated: tuple[Path, Tensor]) -> None:
        path, competed = propagated
        mask = to_mask(competed, rules, ids, size, sequence.size)
        if path in later:
            mask = np.where(later[path] > 0, later[path], mask)
        write_mask(partial / f"{path.stem}.png", mask)

    def start(grid: tuple[int, int], number: int = first) -> Tensor:
        labels_hwC = first_labels(given[number], grid, size, rules, ids)
        return with_channels(labels_hwC, given.values()) if later else labels_hwC

    with whole_folder(folder) as partial:
        for frame in sequence.frames[: first + 1]:
            shown = given[first] if frame == sequence.frames[first] else np.zeros_like(given[first])
            write_mask(partial / f"{frame.stem}.png", shown)
            on_frame()
        beginnings = {number - first: functools.partial(start, number=number) for number in given if number > first}
        labels = carried_labels(sequence.frames[first:], sequence.size, start, extract, rules, beginnings)
        competed = (compete(labels_hwC, rules, extract.stride, sequence.size) for labels_hwC in labels)
        write_behind(write, zip(sequence.frames[first + 1 :], competed, strict=True), extract.device, on_frame)


def write_behind(write: Callable[[Item], object], items: Iterable[Item], device: torch.device, on_frame: OnFrame) -> None:
    """Write each item in threads, while the device makes later ones, and call `on_frame` for each that is written."""
    most_waiting = 1 if device.type == "cpu" else _WRITE_BEHIND
    with ThreadPoolExecutor(threads_for(device)) as writers:
        for _ in in_threads(writers, write, items, most_waiting):
            on_frame()


def write_overlays(sequences: Sequence[VideoSequence], masks: Path, folder: Path) -> None:
    """Write `folder/SEQUENCE/FRAME.png`, replacing what was there, from `masks/SEQUENCE/FRAME.png`; return when all are written."""
    for sequence in share(sequences, rank(), world_size()):
        with whole_folder(folder / sequence.name) as partial:
            for path in sequence.frames:
                name = f"{path.stem}.png"
                Image.fromarray(overlay(path, masks / sequence.name / name)).save(partial / name)
    wait_for_all()


def write_zip(sequences: Sequence[VideoSequence], masks: Path, path: Path, inside: str) -> None:
    """Put `masks/SEQUENCE/FRAME.png` into an archive, in the folder `inside/` of it where that is not empty."""

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w") as archive:  # without compression, which PNG files have
            for sequence in sequences:
                for frame in sequence.frames:
                    name = f"{sequence.name}/{frame.stem}.png"
                    archive.write(masks / name, inside + name)

    write_atomically(path, write)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that replaces `folder` if the block ends without an error, so that a folder that exists is complete."""
    for leftover in folder.parent.glob(f".{folder.name}.*.partial"):
        shutil.rmtree(leftover)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        with names_file(folder):
            yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def _is_whole(sequence: VideoSequence, folder: Path) -> bool:
    """Whether every mask of a sequence is there and whole, also after a crash of the machine that wrote them."""
    facts = (look_at(folder / f"{frame.stem}.png", labels=True) for frame in sequence.frames)
    return folder.is_dir() and all(fact.size == sequence.size[::-1] and not fact.damage for fact in facts)


def claim(folder: Path, inputs: Inputs) -> None:
    """Make a folder this run's, unless it holds another's masks; what stopped before its first sequence does not count."""
    manifest, digest = folder / MANIFEST, text_sha256(json.dumps(list(inputs.values()), sort_keys=True))
    described = parse_json(json.dumps({**inputs, "first masks": text_sha256("".join(inputs["first masks"]))}))
    entries = [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
    if manifest.is_file() and entries != [manifest]:
        try:
            begun = parse_json(manifest.read_text(encoding="utf-8"))
            same, earlier = begun["inputs_sha256"] == digest, begun.get("inputs", {})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{manifest}: damaged ({error}); choose another --output or remove {folder}") from error
        if not same:
            changed = differences(earlier, described) if isinstance(earlier, dict) and earlier else "backbone, data or settings"
            raise ValueError(f"{folder}: holds masks of other inputs ({changed}); choose another --output or remove it")
    elif entries and not manifest.is_file():
        raise ValueError(f"{folder}: holds files of unknown origin; choose an empty --output")
    remove_leftovers(folder)
    write_text_atomically(manifest, json.dumps({"inputs_sha256": digest, "inputs": described}, indent=1) + "\n")
