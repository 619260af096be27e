"""The checkpoint: all that a run needs to go on as if it had never stopped, where a run starts, and export."""

import json
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from backbones.checkpoint import CheckpointError, load_checkpoint
from backbones.convert import Selection, open_backbone, write_conversion
from backbones.layouts.patchbench import FORMAT_MARK, PATCHBENCH, VERSION
from backbones.spec import spec_to_dict
from common.cli import expanded
from common.distributed import gather_objects, rank
from common.files import text_sha256, write_atomically
from pretrain.config import PretrainConfig, TrainConfig, plain_config
from pretrain.methods import METHODS
from pretrain.networks import Networks

logger = logging.getLogger(__name__)

CHECKPOINT_FILE = "checkpoint.pth"
AUTO, NEVER = "auto", "never"

# Fields that the first checkpoints did not have, with the value that fits those; left out where they have it.
_ADDED_FIELDS = {
    "views.interpolation": "bicubic",
    "views.saturation": 0.2,
    "optim.start_lr": 0.0,
    "optim.scale_ends": False,
    "optim.update_every": "step",
}
_PARTS = ("student", "teacher", "objective", "optimizer")  # of the networks

# What may change when a run is continued, besides `watch`: it influences where and how fast it runs, not what it computes.
_FREE_FIELDS = {
    *(f"data.{name}" for name in ("path", "kind", "tar_index", "workers", "pin_workers", "max_unreadable")),
    *(f"train.{name}" for name in ("output", "device", "accumulate", "compile", "checkpoint_every", "keep_last", "keep_every")),
    *(f"train.{name}" for name in ("resume", "export", "log_every", "recipe")),
}


def run_settings(config: PretrainConfig, names: Iterable[str]) -> dict[str, Any]:
    """What a run is, as flat plain values: its configuration, and a digest of its images' names below `data.path`, in order."""
    sections = plain_config(config)
    settings = {"method": sections.pop("method")}
    del sections["watch"]
    settings |= {f"{section}.{field}": value for section, fields in sections.items() for field, value in fields.items()}
    for name, value in _ADDED_FIELDS.items():
        if settings[name] == value:
            del settings[name]
    return {**settings, "data.listing_sha256": text_sha256("\n".join(names))}


def recipe_digest(settings: Mapping[str, Any]) -> str:
    """What runs of one recipe have in common: a digest of their `run_settings`, but for the seed and what computes nothing."""
    fixed = {name: value for name, value in settings.items() if name not in (*_free_fields(settings), "train.seed")}
    return text_sha256(json.dumps(fixed, sort_keys=True))


def _free_fields(settings: Mapping[str, Any]) -> set[str]:
    """What may change; of heads with batch normalisation, the parts of a batch may not: it normalises over each."""
    has_batch_norm = not METHODS[settings["method"]].prototypes or settings["selfpatch.negatives"]
    return _FREE_FIELDS - {"train.accumulate"} if has_batch_norm else _FREE_FIELDS


class Checkpoint:
    """A run's checkpoint: where the run starts, and when it is written, by the first process, and which older ones stay."""

    def __init__(self, train: TrainConfig, settings: Mapping[str, Any], networks: Networks, steps_per_epoch: int) -> None:
        self.path, self.networks = train.output / CHECKPOINT_FILE, networks
        self._train, self._settings, self._steps_per_epoch = train, settings, steps_per_epoch
        self._kept: list[str] = []  # the names of older ones that the run has written and may remove

    def restore(self) -> int:
        """Start as `train.resume` says: `auto`, `never` or a checkpoint file; returns how many steps are done.

        A run that has a checkpoint of its own always continues from that one, also when another is named: the same command line has
        to go on after an interruption. A CheckpointError says why that is not possible; of a damaged file it names an older one.
        """
        source, resume = self.path, expanded(self._train.resume, "train.resume")
        if source.exists():
            if resume == NEVER:
                way_out = f"choose another train.output, or train.resume {AUTO} to continue it"
                raise CheckpointError(f"{source} exists, and train.resume is {NEVER}; {way_out}")
            if resume != AUTO and Path(resume) != source and rank() == 0:
                logger.info("train.resume %s is where this run started; it continues from its own %s", resume, source)
        elif resume in (AUTO, NEVER):
            return 0
        elif not (source := Path(resume)).is_file():
            raise CheckpointError(f"train.resume {resume}: no such file; give {AUTO}, {NEVER}, or a checkpoint of a run")
        content = _load(source, self._settings)
        for name in _PARTS:
            getattr(self.networks, name).load_state_dict(content[name])
        # Another run's older checkpoints are not this one's to remove.
        if source.resolve().parent == self.path.resolve().parent:
            kept = map(str, content.get("kept", ()))  # the first runs kept no older ones
            self._kept = list(filter(re.compile(rf"{self.path.stem}_step\d+\.pth").fullmatch, kept))
        return int(content["step"])

    def is_due(self, step: int) -> bool:
        """Whether the checkpoint is written after this many steps, whether or not they are the last."""
        return step % (self._train.checkpoint_every or self._steps_per_epoch) == 0 or self._is_kept_for_good(step)

    def write(self, step: int) -> None:
        """Write the checkpoint after `step` steps; all processes wait for the first one's success, or fail with it (ValueError)."""
        failure = ""
        if rank() == 0:
            try:
                self._write(step)
            except OSError as error:
                what, why = error.filename or self.path, error.strerror or error
                failure = f"cannot write the checkpoint {what} after step {step}: {why}; "
                failure += "the previous one is intact; " if self.path.exists() else ""
        if failure := gather_objects(failure)[0]:
            raise ValueError(f"{failure}make room, or choose another train.output; the same command continues")

    def _write(self, step: int) -> None:
        settings, epoch, keep_last = self._settings, step // self._steps_per_epoch, self._train.keep_last
        newest = self.path.with_name(f"{self.path.stem}_step{step:08d}{self.path.suffix}")
        if keep_last > 1 and newest.name not in self._kept:
            self._kept.append(newest.name)
        content = {
            "format": FORMAT_MARK,
            "version": VERSION,
            "settings": dict(settings),
            "evaluated_branch": METHODS[settings["method"]].branch,
            "recipe_sha256": recipe_digest(settings),
            "seed": settings["train.seed"],
            "backbone_spec": spec_to_dict(self.networks.spec),
            **{name: getattr(self.networks, name).state_dict() for name in _PARTS},
            "step": step,
            "epoch": epoch,
            "kept": self._kept,
        }

        def save(temporary: Path) -> None:
            with temporary.open("wb") as stream:
                torch.save(content, stream)

        write_atomically(self.path, save)
        if keep_last > 1:
            link_or_copy(self.path, newest)
        # Perhaps several: `keep_last` may be smaller than before the run was continued.
        while len(self._kept) > (keep_last if keep_last > 1 else 0):
            self.path.with_name(self._kept.pop(0)).unlink(missing_ok=True)
        if self._is_kept_for_good(step):
            link_or_copy(self.path, self.path.with_name(f"{self.path.stem}_epoch{epoch:04d}{self.path.suffix}"))

    def _is_kept_for_good(self, step: int) -> bool:
        return bool(self._train.keep_every) and step % (self._train.keep_every * self._steps_per_epoch) == 0


def _load(path: Path, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """A checkpoint that a run with these settings may continue."""
    try:
        content = load_checkpoint(path)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {_way_out(path)}") from error
    if not isinstance(content, Mapping) or content.get("format") != FORMAT_MARK or content.get("version") != VERSION:
        raise CheckpointError(f"{path}: not a pretraining checkpoint of this version; choose another train.output")
    parts = all(isinstance(content.get(name), Mapping) for name in ("settings", *_PARTS))
    if not parts or not isinstance(content.get("step"), int) or not isinstance(content.get("kept", []), list):
        raise CheckpointError(f"{path}: damaged: parts of the checkpoint are missing; {_way_out(path)}")
    saved = content["settings"]
    names = sorted((set(saved) | set(settings)) - _free_fields(settings))
    if differing := [name for name in names if saved.get(name) != settings.get(name)]:
        shown = "; ".join(f"{name} was {saved.get(name)}, is {settings.get(name)}" for name in differing)
        way_out = "give the same ones to continue it, or another train.output to start afresh"
        raise CheckpointError(f"{path} belongs to a run with other settings: {shown}; {way_out}")
    return content


def link_or_copy(path: Path, other: Path) -> None:
    """Give a checkpoint a second name that outlives its replacement: a hard link, or a copy where there are none."""

    def make(temporary: Path) -> None:
        try:
            os.link(path, temporary)
        except OSError:
            # A file system without hard links (many network and FUSE ones). If it is full, the copy says so.
            shutil.copyfile(path, temporary)

    write_atomically(other, make)


def _way_out(damaged: Path) -> str:
    pattern = f"{damaged.stem.split('_')[0]}_*{damaged.suffix}"
    # A look at the end of a file is enough to leave out those that were cut short.
    others = [path for path in damaged.parent.glob(pattern) if not path.samefile(damaged) and zipfile.is_zipfile(path)]
    if not others:
        return f"there is no older one beside it; remove {damaged.name} to start afresh"
    newest = max(others, key=lambda path: path.stat().st_mtime_ns)
    return f"the newest older one beside it is {newest}: remove {damaged.name} and add --train.resume {newest} to go on from it"


def export_backbones(checkpoint: Path) -> list[Path]:
    """Write `backbone_teacher.safetensors` and `backbone_student.safetensors` beside the checkpoint; returns the files."""
    outputs = {branch: checkpoint.with_name(f"backbone_{branch}.safetensors") for branch in PATCHBENCH.branches}
    for branch, output in outputs.items():
        write_conversion(open_backbone(checkpoint, Selection(branch=branch)), checkpoint, output)
    return list(outputs.values())
