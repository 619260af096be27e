"""The folder and the processes of a run, for the evaluation of one checkpoint and for the ablations."""

import logging
import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from backbones.convert import source_sha256, write_conversion
from backbones.file import is_backbone_file, is_timm_name, read_backbone_file
from backbones.layouts import Conversion
from backbones.layouts.patchbench import PATCHBENCH
from common.files import file_sha256, write_atomically
from common.launch import Command, LaunchOptions, submit

logger = logging.getLogger(__name__)

PRETRAINING_FOLDER = "pretraining"
"""Beside the backbone file: the log of a pretraining of ours and the newest of its pictures, which the report shows."""


def write_backbone(conversion: Conversion, checkpoint: Path, output: Path) -> None:
    """Write the run's backbone file from a checkpoint opened by `open_backbone`; copy it if it is a backbone file itself.

    An existing file from the same checkpoint stays; ValueError if it comes from another one. What a pretraining of ours left to look
    at beside its checkpoint is copied, too.
    """
    source = conversion.source
    if output.exists():
        if not _is_of(output, conversion, checkpoint):
            way_out = f"choose another --name, or remove {output.parent}"
            raise ValueError(f"{output} was made from another checkpoint, or another branch of it; {way_out}")
    elif not is_timm_name(checkpoint) and is_backbone_file(checkpoint):
        write_atomically(output, lambda temporary: shutil.copyfile(checkpoint, temporary))
        logger.info("%s is a backbone file already: %s", checkpoint, conversion.spec)
    else:
        write_conversion(conversion, checkpoint, output)
        logger.info("%s: %s, branch %s -> %s: %s", checkpoint, source.format, source.branch, output, conversion.spec)
    if source.format == PATCHBENCH.name:
        _copy_figures(checkpoint.parent, source.epoch, output.parent / PRETRAINING_FOLDER)


def _copy_figures(pretraining: Path, epoch: int, output: Path) -> None:
    """Copy the log of a pretraining and the pictures of its last watched epoch, though of none after that of the checkpoint."""
    watched = [path for path in sorted(pretraining.glob("watch/epoch_*")) if path.name <= f"epoch_{epoch:04d}"]
    for path in [pretraining / "log.jsonl", *(sorted(watched[-1].glob("*.png")) if watched else [])]:
        if path.is_file():
            write_atomically(output / path.name, partial(shutil.copyfile, path))


def _is_of(output: Path, conversion: Conversion, checkpoint: Path) -> bool:
    if not is_timm_name(checkpoint) and is_backbone_file(checkpoint):
        return file_sha256(output) == file_sha256(checkpoint)
    existing = read_backbone_file(output)
    same_file = existing.source.sha256 == source_sha256(checkpoint, conversion)
    return same_file and existing.source.branch == conversion.source.branch and existing.spec == conversion.spec


def launch(module: str, arguments: Sequence[str], options: LaunchOptions, device: str) -> None:
    """Submit `python -m MODULE ARGUMENTS` as a Slurm job if the options ask for it; print it otherwise, for this device."""
    if options.slurm:
        submit(Command(module=module, arguments=tuple(arguments)), options)
    else:
        print(Command(module=module, arguments=(*arguments, *local_processes(options, device))))  # noqa: T201 - a dry run's output


def local_processes(options: LaunchOptions, device: str) -> list[str]:
    """`--gpus N` for a command that runs here, on this device: as the options say, else NPROC_PER_NODE, else the number of GPUs.

    None for one process, such as on the CPU or on a GPU that is named by its number.
    """
    gpus = torch.cuda.device_count() if device in ("auto", "cuda") else 1
    processes = options.gpus or int(os.environ.get("NPROC_PER_NODE", "0")) or gpus
    return ["--gpus", str(processes)] if processes > 1 else []
